"""Builds a steering vector per goal and method, generates steered completions, scores them and
compares methods; or fetches vectors that are published.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/effects/{sae}/approximator.safetensors, for methods that are built from it
    workflow/goals/…/{goal}.yaml

Outputs:
    results/{study}/steering/targets.parquet, targets.csv
    results/{study}/steering/{goal}/latents.json, contrast.safetensors
    results/{study}/steering/{goal}/side_effects.parquet, where effects are asked for
    results/{study}/steering/{goal}/{method}/vector.safetensors, completions.parquet, scores.parquet
    results/{study}/steering/{goal}/{method}/prompts.parquet, of a method in words, which has no vector
    results/{study}/judging/ledger.sqlite, which is no output of a rule: what was paid for outlives
    every rerun
    results/{study}/steering/{goal}/divergence.parquet
    results/{study}/steering/{goal}/capability.parquet, where it is asked for
    results/{study}/steering/{goal}/search/completions.parquet, divergence.parquet, scores.parquet,
    and {method}-layer-{layer}/vector.safetensors; search.parquet, search_best.parquet and .csv,
    where a search is asked for
    results/{study}/steering/summary.parquet, best.parquet, comparisons.parquet, matched.parquet,
    three_way.parquet, each also .csv
    results/{study}/steering/preferences.parquet, ratings.parquet, ratings.csv, where pairs are
    asked for
    resources/published/{source}/steering/{goal}/{method}/vector.safetensors
"""

from saeflow.analyses import steering
from saeflow.analyses.steering.rules import (
    calls,
    goal_vectors,
    judge_inputs,
    searched_vectors,
    vector_inputs,
)

TARGET_SAE = f"saes/{STUDY.target_sae}/sae_weights.safetensors"
APPROXIMATOR = f"effects/{STUDY.target_sae}/approximator.safetensors"
GOALS = FLOW.read["steering"]
JUDGE_INPUTS = judge_inputs(FLOW)
VECTOR_INPUTS = vector_inputs(FLOW)
SEARCHING = ["search"] if STUDY.steering.search else []
TELLING = STUDY.steering.prompting.methods if STUDY.steering.prompting else []


# One job for all goals: the latents of a goal depend on the texts of the others, and no two goals
# get the same.
rule choose_latents:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact(TARGET_SAE),
        manifest=artifact(FLOW.cache),
    output:
        targets="results/{study}/steering/targets.parquet",
        csv=shown("results/{study}/steering/targets.csv"),
        goals=collect(
            "results/{{study}}/steering/{goal}/{file}",
            goal=STUDY.steering.goals.names,
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
        goals=GOALS.files,
        said=GOALS.examples,
        hook=STUDY.hook,
        sae=STUDY.target_sae,
        settings=settings("steering", "targets"),
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
        **VECTOR_INPUTS,
        sae=artifact(TARGET_SAE),
        latents="results/{study}/steering/{goal}/latents.json",
        contrast="results/{study}/steering/{goal}/contrast.safetensors",
        manifest=artifact(FLOW.cache),
    output:
        collect(
            "results/{{study}}/steering/{{goal}}/{method}/vector.safetensors",
            method=STUDY.steering.vectors.methods,
        ),
    log:
        "results/{study}/logs/build_vectors/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/build_vectors/{goal}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("steering", "vectors"),
        hook=STUDY.hook,
        seed=STUDY.seed,
        inputs=GOALS.vector_options,
        said=GOALS.topic if "recovery" in VECTOR_INPUTS else "",
    shell:
        "saeflow steering vectors"
        ' --sae "$(dirname {input.sae:q})"'
        " --latents {input.latents:q}"
        " --contrast {input.contrast:q}"
        " --manifest {input.manifest:q}"
        " --goal {wildcards.goal:q}"
        " --hook {params.hook:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/steering/{wildcards.goal:q}"
        " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
        " {params.inputs:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


if STUDY.effects:

    rule measure_side_effects:
        input:
            **FLOW.model_inputs(FLOW.model),
            sae=artifact(TARGET_SAE),
            corpus="results/{study}/corpus/eval.safetensors",
            manifest=artifact(FLOW.cache),
            baseline=f"results/{{study}}/effects/{STUDY.target_sae}/baseline.safetensors",
            approximator=artifact(APPROXIMATOR),
            vectors=lambda wildcards: goal_vectors(FLOW, wildcards.goal),
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
            settings=settings("effects", "measurement"),
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
            " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


# All methods of a goal in one job, whose start would cost more than the work of one. It keeps what
# is finished, and takes it the next time: a method that is added is completed alone.
rule complete_prompts:
    input:
        **FLOW.model_inputs(FLOW.model),
        vectors=lambda wildcards: goal_vectors(FLOW, wildcards.goal),
        manifest=artifact(FLOW.cache),
    output:
        collect(
            "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
            method=STUDY.steering.vectors.methods,
        ),
    log:
        "results/{study}/logs/complete_prompts/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/complete_prompts/{goal}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
        decode="eager",
    params:
        settings=settings("steering", "completions"),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow steering complete {input.vectors:q}"
        " --model {input.model:q}"
        " --manifest {input.manifest:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/steering/{wildcards.goal:q}"
        " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
        " --threads {threads}"
        " --decode {resources.decode:q}"
        " > {log:q} 2>&1"


if STUDY.steering.prompting:

    rule complete_in_words:
        input:
            **FLOW.model_inputs(FLOW.model),
        output:
            collect(
                "results/{{study}}/steering/{{goal}}/{method}/{file}.parquet",
                method=STUDY.steering.prompting.methods,
                file=["prompts", "completions"],
            ),
        log:
            "results/{study}/logs/complete_in_words/{goal}.log",
        benchmark:
            "results/{study}/benchmarks/complete_in_words/{goal}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            goal=GOALS.file,
            said=GOALS.said_of_one,
            hook=STUDY.hook,
            settings=settings("steering", "completions"),
            prompting=settings("steering", "prompting"),
            dtype=STUDY.model.dtype,
            seed=STUDY.seed,
        shell:
            "saeflow steering complete-in-words"
            " --goal {params.goal:q}"
            " --model {input.model:q}"
            " --hook {params.hook:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --prompting @<(printf %s {params.prompting:q})"
            " --dtype {params.dtype:q}"
            " --seed {params.seed:q}"
            " --output results/{wildcards.study:q}/steering/{wildcards.goal:q}"
            " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


rule judge_completions:
    input:
        **JUDGE_INPUTS,
        completions=collect(
            "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
            method=STUDY.steering.methods,
        ),
        searched=collect(
            "results/{{study}}/steering/{{goal}}/{folder}/completions.parquet",
            folder=SEARCHING,
        ),
    output:
        collect(
            "results/{{study}}/steering/{{goal}}/{folder}/scores.parquet",
            folder=[*STUDY.steering.methods, *SEARCHING],
        ),
    log:
        "results/{study}/logs/judge_completions/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/judge_completions/{goal}.jsonl"
    # Calls need a network and no computer of their own; and a ledger is best written from one
    # machine.
    localrule: STUDY.steering.judge.traits.is_hosted
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1 if JUDGE_INPUTS else 0,
    params:
        goal=GOALS.file,
        said=GOALS.said_of_one,
        settings=settings("steering", "judge"),
        calls=calls(FLOW),
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
        searched=lambda wildcards, input: repeated("--searched", input.searched),
        model=lambda wildcards, input: (
            ["--model", input.model] if "model" in input.keys() else []
        ),
    shell:
        "saeflow steering score {input.completions:q} {params.searched:q}"
        " --goal {params.goal:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output results/{wildcards.study:q}/steering/{wildcards.goal:q} {params.model:q}"
        " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_divergence:
    input:
        **FLOW.model_inputs(FLOW.model),
        vectors=lambda wildcards: goal_vectors(FLOW, wildcards.goal),
        completions=collect(
            "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
            method=STUDY.steering.vectors.methods,
        ),
        in_words=collect(
            "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
            method=TELLING,
        ),
        prompts=collect(
            "results/{{study}}/steering/{{goal}}/{method}/prompts.parquet",
            method=TELLING,
        ),
    output:
        "results/{study}/steering/{goal}/divergence.parquet",
    log:
        "results/{study}/logs/measure_divergence/{goal}.log",
    benchmark:
        "results/{study}/benchmarks/measure_divergence/{goal}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        of_each=lambda wildcards, input: repeated("--vector", input.vectors),
        of_words=lambda wildcards, input: [
            *repeated("--in-words", input.in_words),
            *repeated("--prompts", input.prompts),
        ],
        dtype=STUDY.model.dtype,
    shell:
        "saeflow steering divergence {input.completions:q}"
        " {params.of_each:q} {params.of_words:q}"
        " --model {input.model:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


if STUDY.steering.capability:

    rule measure_capability:
        input:
            **FLOW.model_inputs(FLOW.model),
            corpus="results/{study}/corpus/eval.safetensors",
            vectors=lambda wildcards: goal_vectors(FLOW, wildcards.goal),
            completions=collect(
                "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
                method=STUDY.steering.vectors.methods,
            ),
        output:
            "results/{study}/steering/{goal}/capability.parquet",
        log:
            "results/{study}/logs/measure_capability/{goal}.log",
        benchmark:
            "results/{study}/benchmarks/measure_capability/{goal}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            of_each=lambda wildcards, input: repeated("--vector", input.vectors),
            settings=settings("steering", "capability"),
            questions=GOALS.questions,
            asked=GOALS.asked,
            goal=GOALS.file,
            prompting=GOALS.prompting,
            said=GOALS.said_of_one if TELLING else "",
            dtype=STUDY.model.dtype,
        shell:
            "saeflow steering capability {input.completions:q}"
            " {params.of_each:q}"
            " --model {input.model:q}"
            " --corpus {input.corpus:q}"
            " --settings @<(printf %s {params.settings:q})"
            " {params.questions:q}"
            " --goal {params.goal:q}"
            " --prompting @<(printf %s {params.prompting:q})"
            " --dtype {params.dtype:q}"
            " --output {output:q}"
            " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


if STUDY.steering.search:

    rule search_layers:
        input:
            **FLOW.model_inputs(FLOW.model),
            corpus="results/{study}/corpus/eval.safetensors",
            vectors=lambda wildcards: goal_vectors(
                FLOW, wildcards.goal, STUDY.steering.search.methods
            ),
        output:
            "results/{study}/steering/{goal}/search/completions.parquet",
            "results/{study}/steering/{goal}/search/divergence.parquet",
            [
                f"results/{{study}}/steering/{{goal}}/search/{tried}/vector.safetensors"
                for tried in searched_vectors(FLOW)
            ],
        log:
            "results/{study}/logs/search_layers/{goal}.log",
        benchmark:
            "results/{study}/benchmarks/search_layers/{goal}.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
            decode="eager",
        params:
            goal=GOALS.file,
            said=GOALS.said_of_one,
            hook=STUDY.hook,
            settings=settings("steering", "completions"),
            search=settings("steering", "search"),
            activations=settings("activations"),
            caa_positions=STUDY.steering.vectors.caa_positions,
            dtype=STUDY.model.dtype,
            seed=STUDY.seed,
        shell:
            "saeflow steering search {input.vectors:q}"
            " --goal {params.goal:q}"
            " --model {input.model:q}"
            " --corpus {input.corpus:q}"
            " --hook {params.hook:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --search @<(printf %s {params.search:q})"
            " --activations @<(printf %s {params.activations:q})"
            " --caa-positions {params.caa_positions:q}"
            " --dtype {params.dtype:q}"
            " --seed {params.seed:q}"
            " --output results/{wildcards.study:q}/steering/{wildcards.goal:q}/search"
            " --parts results/{wildcards.study:q}/checkpoints/steering/{wildcards.goal:q}"
            " --threads {threads}"
            " --decode {resources.decode:q}"
            " > {log:q} 2>&1"

    rule choose_layers:
        input:
            completions=collect(
                "results/{{study}}/steering/{goal}/search/completions.parquet",
                goal=STUDY.steering.goals.names,
            ),
            scores=collect(
                "results/{{study}}/steering/{goal}/search/scores.parquet",
                goal=STUDY.steering.goals.names,
            ),
            divergence=collect(
                "results/{{study}}/steering/{goal}/search/divergence.parquet",
                goal=STUDY.steering.goals.names,
            ),
        output:
            collect(
                "results/{{study}}/steering/{table}.parquet", table=steering.SEARCHED
            ),
            *[
                shown(f"results/{{study}}/steering/{table}.csv")
                for table in steering.SEARCHED
            ],
        log:
            "results/{study}/logs/choose_layers.log",
        benchmark:
            "results/{study}/benchmarks/choose_layers.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        params:
            scores=lambda wildcards, input: repeated("--scores", input.scores),
            divergence=lambda wildcards, input: repeated(
                "--divergence", input.divergence
            ),
            layer=STUDY.hook.split(".")[1],
            settings=settings("steering", "summary"),
            search=settings("steering", "search"),
            judge=settings("steering", "judge"),  # as of summarise_scores
            seed=STUDY.seed,
        shell:
            "saeflow steering choose {input.completions:q}"
            " {params.scores:q} {params.divergence:q}"
            " --layer {params.layer:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --search @<(printf %s {params.search:q})"
            " --seed {params.seed:q}"
            " --output results/{wildcards.study:q}/steering"
            " > {log:q} 2>&1"


rule summarise_scores:
    input:
        completions=collect(
            "results/{{study}}/steering/{goal}/{method}/completions.parquet",
            goal=STUDY.steering.goals.names,
            method=STUDY.steering.methods,
        ),
        scores=collect(
            "results/{{study}}/steering/{goal}/{method}/scores.parquet",
            goal=STUDY.steering.goals.names,
            method=STUDY.steering.methods,
        ),
        divergence=collect(
            "results/{{study}}/steering/{goal}/divergence.parquet",
            goal=STUDY.steering.goals.names,
        ),
        capability=collect(
            "results/{{study}}/steering/{goal}/capability.parquet",
            goal=STUDY.steering.goals.names if STUDY.steering.capability else [],
        ),
    output:
        collect("results/{{study}}/steering/{table}.parquet", table=steering.SUMMARIES),
        *[
            shown(f"results/{{study}}/steering/{table}.csv")
            for table in steering.SUMMARIES
        ],
    log:
        "results/{study}/logs/summarise_scores.log",
    benchmark:
        "results/{study}/benchmarks/summarise_scores.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        scores=lambda wildcards, input: repeated("--scores", input.scores),
        divergence=lambda wildcards, input: repeated("--divergence", input.divergence),
        capability=lambda wildcards, input: repeated("--capability", input.capability),
        settings=settings("steering", "summary"),
        # A judge that fails leaves its old scores deleted; only this tells the next run that old
        # summaries are stale.
        judge=settings("steering", "judge"),
        seed=STUDY.seed,
    shell:
        "saeflow steering summarise {input.completions:q}"
        " {params.scores:q} {params.divergence:q} {params.capability:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/steering"
        " > {log:q} 2>&1"


rule compare_pairs:
    input:
        best="results/{study}/steering/best.parquet",
        completions=collect(
            "results/{{study}}/steering/{goal}/{method}/completions.parquet",
            goal=STUDY.steering.goals.names,
            method=STUDY.steering.methods,
        ),
    output:
        "results/{study}/steering/preferences.parquet",
        "results/{study}/steering/ratings.parquet",
        shown("results/{study}/steering/ratings.csv"),
    log:
        "results/{study}/logs/compare_pairs.log",
    benchmark:
        "results/{study}/benchmarks/compare_pairs.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        goals=GOALS.folder,
        said=GOALS.said,
        pairs=STUDY.steering.pairs,
        settings=settings("steering", "judge"),
        calls=calls(FLOW),
        summary=settings("steering", "summary"),
        seed=STUDY.seed,
    shell:
        "saeflow steering pairs {input.completions:q}"
        " --best {input.best:q}"
        " --goals {params.goals:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --count {params.pairs:q}"
        " --summary @<(printf %s {params.summary:q})"
        " --seed {params.seed:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --output results/{wildcards.study:q}/steering"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule fetch_vectors:
    output:
        collect(
            "resources/published/{{source}}/steering/{{goal}}/{method}/vector.safetensors",
            method=STUDY.steering.vectors.methods,
        ),
    log:
        f"results/{STUDY.study}/logs/fetch_vectors/{{source}}.{{goal}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_vectors/{{source}}.{{goal}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("steering", "vectors"),
        hook=STUDY.hook,
        methods=STUDY.steering.vectors.methods,
    shell:
        "saeflow fetch vectors {params.methods:q}"
        " --published @<(printf %s {params.published:q})"
        " --key steering.vectors.published"
        " --hook {params.hook:q}"
        " --goal {wildcards.goal:q}"
        " --output resources/published/{wildcards.source:q}/steering/{wildcards.goal:q}"
        " > {log:q} 2>&1"
