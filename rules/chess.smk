"""Looks for concepts of chess in SAEs, for what they have to do with skill, and for what changing them does.

Inputs:
    results/{study}/chess/positions.parquet
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/

Outputs:
    results/{study}/activations/{model}/{hook}/shard-{shard}.parquet
    results/{study}/saes/{sae}/metrics.json
    results/{study}/chess/labels.safetensors                    which positions are studied, and what holds in each
    results/{study}/chess/{sae}/concepts.parquet                the concepts, and why some are skipped
    results/{study}/chess/{sae}/associations.parquet            by concept and latent
    results/{study}/chess/{sae}/probes.parquet                  the same by linear probes and differences of means
    results/{study}/chess/{sae}/boards.parquet                  positions in which the best latents are most active
    results/{study}/chess/{sae}/skill.parquet, awareness.parquet
    results/{study}/chess/{sae}/interventions.parquet
    results/{study}/chess/transitions.parquet
"""


rule cache_board_activations:
    input:
        **player_inputs(),
        positions=POSITIONS,
    output:
        [
            f"results/{{study}}/activations/{{model}}/{hook}/shard-{{shard}}.{{suffix}}"
            for hook in STUDY.hooks
        ],
    log:
        "results/{study}/logs/cache_board_activations/{model}.{shard}.{suffix}.log",
    benchmark:
        "results/{study}/benchmarks/cache_board_activations/{model}.{shard}.{suffix}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("activations"),
        hooks=hook_options,
    shell:
        "saeflow chess cache {output:q}"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --shard {wildcards.shard:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule evaluate_board_sae:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
    output:
        "results/{study}/saes/{sae}/metrics.json",
    log:
        "results/{study}/logs/evaluate_board_sae/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/evaluate_board_sae/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        settings=settings("accuracy"),
        seed=STUDY.seed,
    shell:
        "saeflow chess evaluate-sae"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --positions {input.positions:q}"
        " --hook {params.hook:q}"
        " --tokens {params.tokens:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --metrics {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


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


rule measure_skill:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/chess/labels.safetensors",
        associations="results/{study}/chess/{sae}/associations.parquet",
        engine=engine_moves("skill"),
    output:
        skill="results/{study}/chess/{sae}/skill.parquet",
        awareness="results/{study}/chess/{sae}/awareness.parquet",
    log:
        "results/{study}/logs/measure_skill/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/measure_skill/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        engine=engine_option,
        settings=settings("skill"),
        seed=STUDY.seed,
    shell:
        "saeflow chess skill"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --tokens {params.tokens:q}"
        " --positions {input.positions:q}"
        " --labels {input.labels:q}"
        " --associations {input.associations:q}"
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.skill:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"


rule intervene:
    input:
        **player_inputs(),
        sae="results/{study}/saes/{sae}/sae_weights.safetensors",
        positions=POSITIONS,
        labels="results/{study}/chess/labels.safetensors",
        associations="results/{study}/chess/{sae}/associations.parquet",
        engine=engine_moves("interventions"),
    output:
        "results/{study}/chess/{sae}/interventions.parquet",
    log:
        "results/{study}/logs/intervene/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/intervene/{sae}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        hook=sae_hook,
        tokens=STUDY.activations.tokens,
        engine=engine_option,
        settings=settings("interventions"),
        seed=STUDY.seed,
    shell:
        "saeflow chess intervene"
        " --model {input.model:q}"
        " --hook {params.hook:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --tokens {params.tokens:q}"
        " --positions {input.positions:q}"
        " --labels {input.labels:q}"
        " --associations {input.associations:q}"
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule find_transitions:
    input:
        **player_inputs(),
        positions=POSITIONS,
        engine=engine_moves("transitions"),
    output:
        "results/{study}/chess/transitions.parquet",
    log:
        "results/{study}/logs/find_transitions.log",
    benchmark:
        "results/{study}/benchmarks/find_transitions.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        engine=engine_option,
        settings=settings("transitions"),
        seed=STUDY.seed,
    shell:
        "saeflow chess transitions"
        " --model {input.model:q}"
        " --positions {input.positions:q}"
        " --split eval"
        " {params.engine:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
