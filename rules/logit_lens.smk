"""Looks at latents through the unembedding: what each does to the logits, and which token sets stand out.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/examples/{sae}/
    results/{study}/corpus/sae.safetensors

Outputs:
    results/{study}/logit_lens/vocabulary.parquet, sets.parquet, members.parquet
    results/{study}/logit_lens/{sae}/latents.parquet, tokens.parquet, histograms.parquet
    results/{study}/logit_lens/{sae}/scores.parquet, enrichment.parquet, splits.parquet
    results/{study}/logit_lens/{sae}/gsea.parquet                       where it is asked for
    results/{study}/logit_lens/{sae}/causal.parquet, causal_latents.parquet
"""

from saeflow.analyses import logit_lens

SETS = FLOW.read["logit_lens"]


rule find_token_sets:
    input:
        **FLOW.model_inputs(FLOW.model),
    output:
        vocabulary="results/{study}/logit_lens/vocabulary.parquet",
        sets="results/{study}/logit_lens/sets.parquet",
        members="results/{study}/logit_lens/members.parquet",
    log:
        "results/{study}/logs/find_token_sets.log",
    benchmark:
        "results/{study}/benchmarks/find_token_sets.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        files=SETS.paths,
        said=SETS.said,
        settings=settings("logit_lens", "token_sets"),
    shell:
        "saeflow logit_lens sets {params.files:q}"
        " --model {input.model:q}"
        " --settings @<(printf %s {params.settings:q})"
        ' --output "$(dirname {output.sets:q})"'
        " > {log:q} 2>&1"


rule apply_logit_lens:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        vocabulary="results/{study}/logit_lens/vocabulary.parquet",
        sets="results/{study}/logit_lens/sets.parquet",
        members="results/{study}/logit_lens/members.parquet",
        examples="results/{study}/examples/{sae}/latents.parquet",
    output:
        [
            f"results/{{study}}/logit_lens/{{sae}}/{table}.parquet"
            for table in logit_lens.tables(STUDY.logit_lens)
        ],
    log:
        "results/{study}/logs/apply_logit_lens/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/apply_logit_lens/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["lens_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("logit_lens", "enrichment"),
        projection=settings("logit_lens", "projection"),
        hook=lambda wildcards: STUDY.hook_of(wildcards.sae),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow logit_lens apply"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        ' --sets "$(dirname {input.sets:q})"'
        ' --examples "$(dirname {input.examples:q})"'
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --projection @<(printf %s {params.projection:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output results/{wildcards.study:q}/logit_lens/{wildcards.sae:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule check_logit_lens:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/sae.safetensors",
        vocabulary="results/{study}/logit_lens/vocabulary.parquet",
        lens="results/{study}/logit_lens/{sae}/latents.parquet",
        enrichment="results/{study}/logit_lens/{sae}/enrichment.parquet",
        examples="results/{study}/examples/{sae}/latents.parquet",
        contexts="results/{study}/examples/{sae}/contexts.parquet",
    output:
        tokens="results/{study}/logit_lens/{sae}/causal.parquet",
        latents="results/{study}/logit_lens/{sae}/causal_latents.parquet",
    log:
        "results/{study}/logs/check_logit_lens/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/check_logit_lens/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["lens_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("logit_lens", "causal"),
        projection=settings("logit_lens", "projection"),
        hook=lambda wildcards: STUDY.hook_of(wildcards.sae),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow logit_lens check"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        ' --sets "$(dirname {input.vocabulary:q})"'
        ' --lens "$(dirname {input.lens:q})"'
        ' --examples "$(dirname {input.examples:q})"'
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --projection @<(printf %s {params.projection:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        ' --output "$(dirname {output.tokens:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
