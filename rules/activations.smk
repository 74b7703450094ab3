"""Caches activations of the study's models, at all hooks of a model from the same forward passes, in shards.

Inputs:
    results/{study}/models/{model}/
    results/{study}/corpus/sae.safetensors

Outputs:
    results/{study}/activations/{model}/{hook}/shard-{shard}.parquet
"""

for NAME, HOOKS in STUDY.caches.items():

    rule:
        name:
            f"cache_activations_{NAME}"
            if NAME != STUDY.model.name
            else "cache_activations"
        input:
            **FLOW.model_inputs(f"models/{NAME}"),
            **FLOW.model_inputs(FLOW.model, "first"),
            corpus="results/{study}/corpus/sae.safetensors",
        output:
            [
                f"results/{{study}}/activations/{NAME}/{hook}/shard-{{shard}}.{{suffix}}"
                for hook in HOOKS
            ],
        log:
            f"results/{{study}}/logs/cache_activations/{NAME}.{{shard}}.{{suffix}}.log",
        benchmark:
            f"results/{{study}}/benchmarks/cache_activations/{NAME}.{{shard}}.{{suffix}}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            settings=settings("activations"),
            hooks=repeated("--hook", HOOKS),
            dtype=STUDY.model.dtype,
        shell:
            "saeflow activations cache {output:q}"
            " --model {input.model:q}"
            " --tokenizer {input.first:q}"
            " --corpus {input.corpus:q}"
            " {params.hooks:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --dtype {params.dtype:q}"
            " --shard {wildcards.shard:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"
