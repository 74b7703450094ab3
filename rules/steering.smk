"""Builds a steering vector per goal and method, and generates steered completions.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/approximators/{sae}/approximator.safetensors
    workflow/goals/…/{goal}.yaml

Outputs:
    results/{study}/steering/targets.parquet, targets.csv
    results/{study}/steering/{goal}/latents.json, contrast.safetensors
    results/{study}/steering/{goal}/side_effects.parquet
    results/{study}/steering/{goal}/{method}/vector.safetensors
    results/{study}/steering/{goal}/{method}/completions.parquet
"""


# One job for all goals: the latents of a goal depend on the texts of the others, and no two goals get the same.
rule choose_latents:
    input:
        **model_inputs(MODEL),
        sae=artifact(STEERING_SAE),
        manifest=artifact(CACHE),
    output:
        targets="results/{study}/steering/targets.parquet",
        csv=shown("results/{study}/steering/targets.csv"),
        goals=collect(
            "results/{{study}}/steering/{goal}/{file}",
            goal=STUDY.goals.names,
            file=["latents.json", "contrast.safetensors"],
        ),
    log:
        "results/{study}/logs/choose_latents.log",
    benchmark:
        "results/{study}/benchmarks/choose_latents.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        goals=goal_files,
        said=goals_said,
        hook=STUDY.hook,
        sae=STUDY.steering_sae,
        settings=settings("steering", only=("latents", "shared_latents")),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow steering latents {params.goals:q}"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --sae-name {params.sae:q}"
        " --manifest {input.manifest:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.targets:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"


rule build_vectors:
    input:
        **planted_inputs(),
        sae=artifact(STEERING_SAE),
        approximator=artifact(APPROXIMATOR),
        latents="results/{study}/steering/{goal}/latents.json",
        contrast="results/{study}/steering/{goal}/contrast.safetensors",
        manifest=artifact(CACHE),
    output:
        collect(
            "results/{{study}}/steering/{{goal}}/{method}/vector.safetensors",
            method=STUDY.steering.methods,
        ),
    log:
        "results/{study}/logs/build_vectors/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/build_vectors/{goal}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings(
            "steering",
            only=("methods", "bias_weight", "caa_positions", "fgaa", "pinverse_form"),
        ),
        hook=STUDY.hook,
        seed=STUDY.seed,
        planted=planted_options,
        said=goal_said if planted_inputs() else "",
    shell:
        "saeflow steering vectors"
        ' --sae "$(dirname {input.sae:q})"'
        " --approximator {input.approximator:q}"
        " --latents {input.latents:q}"
        " --contrast {input.contrast:q}"
        " --manifest {input.manifest:q}"
        " --goal {wildcards.goal:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/steering/{wildcards.goal:q}"
        " {params.planted:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_side_effects:
    input:
        **model_inputs(MODEL),
        sae=artifact(STEERING_SAE),
        corpus="results/{study}/corpus/eval.safetensors",
        manifest=artifact(CACHE),
        baseline=f"results/{{study}}/effects/{STUDY.steering_sae}/baseline.safetensors",
        approximator=artifact(APPROXIMATOR),
        vectors=goal_vectors,
    output:
        "results/{study}/steering/{goal}/side_effects.parquet",
    log:
        "results/{study}/logs/measure_side_effects/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/measure_side_effects/{goal}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings(
            "effects", without=("vectors", "block_size", "baseline_samples", "dtype")
        ),
        hook=STUDY.hook,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow steering side-effects {input.vectors:q}"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --corpus {input.corpus:q}"
        " --manifest {input.manifest:q}"
        " --baseline {input.baseline:q}"
        " --approximator {input.approximator:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule complete_prompts:
    input:
        **model_inputs(MODEL),
        vector=artifact("steering/{goal}/{method}/vector.safetensors"),
        manifest=artifact(CACHE),
    output:
        "results/{study}/steering/{goal}/{method}/completions.parquet",
    log:
        "results/{study}/logs/complete_prompts/{goal}.{method}.log",
    benchmark:
        "results/{study}/benchmarks/complete_prompts/{goal}.{method}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings(
            "steering",
            only=(
                "scales",
                "scale_unit",
                "prompts",
                "samples",
                "new_tokens",
                "sampling",
            ),
        ),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow steering complete"
        " --model {input.model:q}"
        " --vector {input.vector:q}"
        " --manifest {input.manifest:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
