"""Finds out where latents fire, from the cache of activations.

Inputs:
    results/{study}/activations/{model}/{hook}/manifest.json
    results/{study}/saes/{sae}/
    results/{study}/corpus/sae.safetensors
    results/{study}/models/{model}/

Outputs, all in results/{study}/examples/{sae}/:
    latents.parquet, histogram.parquet, contexts.parquet, cofiring.parquet
    vocabulary.parquet, summary.json
    rows.parquet, activations/shard-00000.parquet, …    what fires where, as a sparse table
"""


rule find_examples:
    input:
        **FLOW.model_inputs(FLOW.model),
        manifest=lambda wildcards: FLOW.manifests(wildcards.sae)[0],
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/sae.safetensors",
    output:
        latents="results/{study}/examples/{sae}/latents.parquet",
        histogram="results/{study}/examples/{sae}/histogram.parquet",
        contexts="results/{study}/examples/{sae}/contexts.parquet",
        cofiring="results/{study}/examples/{sae}/cofiring.parquet",
        vocabulary="results/{study}/examples/{sae}/vocabulary.parquet",
        rows="results/{study}/examples/{sae}/rows.parquet",
        summary="results/{study}/examples/{sae}/summary.json",
        activations=directory("results/{study}/examples/{sae}/activations"),
    log:
        "results/{study}/logs/find_examples/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/find_examples/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["example_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("examples"),
        seed=STUDY.seed,
    shell:
        "saeflow examples find"
        " --manifest {input.manifest:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.latents:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
