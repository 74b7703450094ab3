"""Looks for the latents that tell concepts of chess.

Inputs:
    results/{study}/chess/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/chess/labels.safetensors                    which positions are studied, and what holds in each
    results/{study}/chess/{sae}/concepts.parquet                the concepts, and why some are skipped
    results/{study}/chess/{sae}/associations.parquet            by concept and latent
    results/{study}/chess/{sae}/probes.parquet                  the same by linear probes and differences of means
    results/{study}/chess/{sae}/boards.parquet                  positions in which the best latents are most active
"""


rule label_concepts:
    input:
        POSITIONS,
    output:
        "results/{study}/chess/labels.safetensors",
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
        labels="results/{study}/chess/labels.safetensors",
    output:
        concepts="results/{study}/chess/{sae}/concepts.parquet",
        associations="results/{study}/chess/{sae}/associations.parquet",
        probes="results/{study}/chess/{sae}/probes.parquet",
        boards="results/{study}/chess/{sae}/boards.parquet",
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
