"""Scores completions and summarises them.

Inputs:
    results/{study}/steering/{goal}/{method}/completions.parquet
    workflow/goals/…/{goal}.yaml

Outputs:
    results/{study}/steering/{goal}/{method}/scores.parquet
    results/{study}/judging/ledger.sqlite, which is no output of a rule: what was paid for outlives every rerun
    results/{study}/steering/summary.parquet, best.parquet, comparisons.parquet, each also .csv
"""

# How calls are made and what may be spent is told to jobs beside their params: no change of it reruns anything.
CALLS = settings("calls")


rule judge_completions:
    input:
        **judge_inputs(),
        completions="results/{study}/steering/{goal}/{method}/completions.parquet",
        goal=goal_file,
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
    params:
        settings=settings("judge", without=["pairs"]),
        seed=STUDY.seed,
        dtype=STUDY.model.dtype,
        model=model_option,
    shell:
        "saeflow judge score"
        " --completions {input.completions}"
        " --goal {input.goal}"
        " --settings {params.settings:q}"
        " --seed {params.seed}"
        " --dtype {params.dtype}"
        " --output {output} {params.model}"
        " --ledger results/{wildcards.study}/judging/ledger.sqlite"
        " --calls {CALLS:q}"
        " --threads {threads}"
        " > {log} 2>&1"


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
    output:
        collect(
            "results/{{study}}/steering/{table}.{suffix}",
            table=["summary", "best", "comparisons"],
            suffix=["parquet", "csv"],
        ),
    log:
        "results/{study}/logs/summarise_scores.log",
    benchmark:
        "results/{study}/benchmarks/summarise_scores.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("summary"),
        seed=STUDY.seed,
    shell:
        "saeflow judge summarise {input.completions}"
        " --settings {params.settings:q}"
        " --seed {params.seed}"
        " --output results/{wildcards.study}/steering"
        " > {log} 2>&1"
