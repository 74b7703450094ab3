"""Scores completions and summarises them.

Inputs:
    results/{study}/steering/{goal}/{method}/completions.parquet
    workflow/goals/…/{goal}.yaml

Outputs:
    results/{study}/steering/{goal}/{method}/scores.parquet
    results/{study}/judging/ledger.sqlite, which is no output of a rule: what was paid for outlives every rerun
    results/{study}/steering/{goal}/divergence.parquet
    results/{study}/steering/summary.parquet, best.parquet, comparisons.parquet, matched.parquet, three_way.parquet,
    each also .csv
    results/{study}/steering/preferences.parquet, ratings.parquet, ratings.csv, where judge.pairs asks for them
"""

SUMMARIES = ["summary", "best", "comparisons", "matched", "three_way"]


rule judge_completions:
    input:
        **judge_inputs(),
        completions="results/{study}/steering/{goal}/{method}/completions.parquet",
    output:
        "results/{study}/steering/{goal}/{method}/scores.parquet",
    log:
        "results/{study}/logs/judge_completions/{goal}.{method}.log",
    benchmark:
        "results/{study}/benchmarks/judge_completions/{goal}.{method}.jsonl"
    # Calls need a network and no computer of their own; and a ledger is best written from one machine.
    localrule: STUDY.judge.kind == "openai"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1 if judge_inputs() else 0,
    params:
        goal=goal_file,
        said=goal_said,
        settings=settings("judge", without=["pairs"]),
        calls=calls,
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
        model=model_option,
    shell:
        "saeflow steering score"
        " --completions {input.completions:q}"
        " --goal {params.goal:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q} {params.model:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_divergence:
    input:
        **model_inputs(MODEL),
        vectors=goal_vectors,
        completions=collect(
            "results/{{study}}/steering/{{goal}}/{method}/completions.parquet",
            method=STUDY.steering.methods,
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
        dtype=STUDY.model.dtype,
    shell:
        "saeflow steering divergence {input.completions:q}"
        " --model {input.model:q}"
        " --dtype {params.dtype:q}"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule summarise_scores:
    input:
        completions=collect(
            "results/{{study}}/steering/{goal}/{method}/completions.parquet",
            goal=STUDY.goals.names,
            method=STUDY.steering.methods,
        ),
        scores=collect(
            "results/{{study}}/steering/{goal}/{method}/scores.parquet",
            goal=STUDY.goals.names,
            method=STUDY.steering.methods,
        ),
        divergence=collect(
            "results/{{study}}/steering/{goal}/divergence.parquet",
            goal=STUDY.goals.names,
        ),
    output:
        collect("results/{{study}}/steering/{table}.parquet", table=SUMMARIES),
        *[shown(f"results/{{study}}/steering/{table}.csv") for table in SUMMARIES],
    log:
        "results/{study}/logs/summarise_scores.log",
    benchmark:
        "results/{study}/benchmarks/summarise_scores.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("summary"),
        # A judge that fails leaves its old scores deleted; only this tells the next run that old summaries are stale.
        judge=settings("judge", without=["pairs", "base_url"]),
        seed=STUDY.seed,
    shell:
        "saeflow steering summarise {input.completions:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/steering"
        " > {log:q} 2>&1"


rule compare_pairs:
    input:
        best="results/{study}/steering/best.parquet",
        completions=collect(
            "results/{{study}}/steering/{goal}/{method}/completions.parquet",
            goal=STUDY.goals.names,
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
        goals=goals_folder,
        said=goals_said,
        settings=settings("judge"),
        calls=calls,
        summary=settings("summary"),
        seed=STUDY.seed,
    shell:
        "saeflow steering pairs {input.completions:q}"
        " --best {input.best:q}"
        " --goals {params.goals:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --summary @<(printf %s {params.summary:q})"
        " --seed {params.seed:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --output results/{wildcards.study:q}/steering"
        " --threads {threads}"
        " > {log:q} 2>&1"
