"""Looks for the latents that tell concepts of chess.

Inputs:
    results/{study}/games/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/concepts/labels.safetensors                    which positions are studied, and what holds in each
    results/{study}/concepts/{sae}/concepts.parquet                the concepts, and why some are skipped
    results/{study}/concepts/{sae}/associations.parquet            by concept and latent
    results/{study}/concepts/{sae}/probes.parquet                  the same by linear probes and differences of means
    results/{study}/concepts/{sae}/boards.parquet                  positions in which the best latents are most active
    results/{study}/concepts/{sae}/directions.safetensors          the directions of probes and differences of means
"""


rule label_concepts:
    input:
        POSITIONS,
    output:
        "results/{study}/concepts/labels.safetensors",
    log:
        "results/{study}/logs/label_concepts.log",
    benchmark:
        "results/{study}/benchmarks/label_concepts.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("concepts"),
        seed=STUDY.seed,
    shell:
        "saeflow chess concepts"
        " --positions {input:q}"
        " --split eval"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule associate_concepts:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/concepts/labels.safetensors",
    output:
        concepts="results/{study}/concepts/{sae}/concepts.parquet",
        associations="results/{study}/concepts/{sae}/associations.parquet",
        probes="results/{study}/concepts/{sae}/probes.parquet",
        boards="results/{study}/concepts/{sae}/boards.parquet",
        directions="results/{study}/concepts/{sae}/directions.safetensors",
    log:
        "results/{study}/logs/associate_concepts/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/associate_concepts/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        settings=settings("concepts"),
        seed=STUDY.seed,
    shell:
        "saeflow chess associate"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --tokens {params.tokens:q}"
        " --positions {input.positions:q}"
        " --labels {input.labels:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.concepts:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"
