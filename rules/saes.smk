"""Trains SAEs on caches of activations, or imports them.

Inputs:
    results/{study}/activations/{model}/{hook}/manifest.json
    results/{study}/corpus/sae.safetensors, and a tokenizer, where an SAE leaves out some of the text

Outputs:
    results/{study}/saes/{sae}/cfg.json, sae_weights.safetensors    SAELens 6 layout
    results/{study}/saes/{sae}/training.parquet                     for an SAE trained here
"""

TRAIN_SAES = (
    "saeflow sae train"
    " {params.caches:q}"
    " --settings @<(printf %s {params.settings:q})"
    " --seed {params.seed:q}"
    " --name {params.name:q}"
    " --checkpoint {params.checkpoint:q}"
    " --output results/{wildcards.study:q}/saes"
    " {params.initial:q} {params.text:q}"
    " --threads {threads}"
    " --processes {resources.processes:q}"
    " > {log:q} 2>&1"
)


rule train_sae:
    input:
        manifests=lambda wildcards: FLOW.manifests(wildcards.sae),
        initial=lambda wildcards: list(FLOW.initial_saes([wildcards.sae]).values()),
        text=lambda wildcards: FLOW.text_inputs([wildcards.sae]),
    output:
        config="results/{study}/saes/{sae}/cfg.json",
        weights="results/{study}/saes/{sae}/sae_weights.safetensors",
        curve="results/{study}/saes/{sae}/training.parquet",
    log:
        "results/{study}/logs/train_sae/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/train_sae/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(first for first, *more in STUDY.trainings.values() if not more),
    conda:
        "../envs/default.yaml"
    threads: 2
    resources:
        gpu=1,
        processes=1,
    params:
        name="{sae}",
        caches=lambda wildcards, input: FLOW.manifest_options(
            wildcards.sae, input.manifests
        ),
        settings=lambda wildcards: FLOW.sae_settings([wildcards.sae]),
        initial=lambda wildcards, input: FLOW.initial_options([wildcards.sae]),
        text=lambda wildcards, input: FLOW.text_options([wildcards.sae]),
        seed=STUDY.seed,
        checkpoint="results/{study}/checkpoints/saes/{sae}.pt",
    shell:
        TRAIN_SAES


for GROUP, MEMBERS in STUDY.trainings.items():
    if len(MEMBERS) > 1:

        # The SAEs of a group, from one pass over the cache.
        rule:
            name:
                f"train_saes_{GROUP}"
            input:
                manifests=FLOW.manifests(MEMBERS[0]),
                initial=list(FLOW.initial_saes(MEMBERS).values()),
                text=FLOW.text_inputs(MEMBERS),
            output:
                config=expand("results/{{study}}/saes/{sae}/cfg.json", sae=MEMBERS),
                weights=expand(
                    "results/{{study}}/saes/{sae}/sae_weights.safetensors", sae=MEMBERS
                ),
                curve=expand(
                    "results/{{study}}/saes/{sae}/training.parquet", sae=MEMBERS
                ),
            log:
                f"results/{{study}}/logs/train_saes/{GROUP}.log",
            benchmark:
                f"results/{{study}}/benchmarks/train_saes/{GROUP}.jsonl"
            conda:
                "../envs/default.yaml"
            threads: 2
            resources:
                gpu=1,
                processes=1,
            params:
                name=GROUP,
                caches=FLOW.manifest_options(MEMBERS[0], FLOW.manifests(MEMBERS[0])),
                settings=given(FLOW.sae_settings(MEMBERS)),
                initial=FLOW.initial_options(MEMBERS),
                text=FLOW.text_options(MEMBERS),
                seed=STUDY.seed,
                checkpoint=f"results/{{study}}/checkpoints/saes/{GROUP}.pt",
            shell:
                TRAIN_SAES


rule import_sae:
    output:
        config="results/{study}/saes/{sae}/cfg.json",
        weights="results/{study}/saes/{sae}/sae_weights.safetensors",
    log:
        "results/{study}/logs/import_sae/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/import_sae/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(name for name, sae in STUDY.saes.items() if sae.path),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        path=lambda wildcards: STUDY.saes[wildcards.sae].path,
        format=lambda wildcards: STUDY.saes[wildcards.sae].format,
        centred=lambda wildcards: ["--centred"] * STUDY.saes[wildcards.sae].centred,
        place=FLOW.import_options,
    shell:
        "saeflow sae import"
        " --path {params.path:q}"
        " --format {params.format:q}"
        " {params.place:q} {params.centred:q}"
        ' --output "$(dirname {output.config:q})"'
        " > {log:q} 2>&1"
