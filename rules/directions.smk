"""Takes directions out of the residual stream and adds them, and measures what that does.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/, and files of vectors, for directions that are made of them
    results/{study}/corpus/eval.safetensors
    a file of prompts that the config names

Outputs, in results/{study}/directions/{model}/:
    prompts.parquet, activations.safetensors    what the model holds of all prompts
    {direction}/candidates.parquet, direction.safetensors
    {direction}/edits.parquet, answers.parquet
    {direction}/verdicts.parquet, judged.parquet    where a judge reads the answers
    transfer.parquet, angles.parquet            of several models
"""

from saeflow.analyses.directions.rules import latent_options, source_files
from saeflow.analyses.steering.rules import calls

PROMPTS = FLOW.read["directions"]
DIRECTED = FLOW.names["directed_model"]


rule read_prompts:
    input:
        **FLOW.model_inputs("models/{directed_model}"),
    output:
        table="results/{study}/directions/{directed_model}/prompts.parquet",
        activations="results/{study}/directions/{directed_model}/activations.safetensors",
    log:
        "results/{study}/logs/read_prompts/{directed_model}.log",
    benchmark:
        "results/{study}/benchmarks/read_prompts/{directed_model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        settings=settings("directions", "prompts"),
        sources=settings("directions", "sources"),
        behaviour=settings("directions", "behaviour"),
        selection=settings("directions", "selection"),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow directions read"
        " --model {input.model:q}"
        " {params.prompts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --sources @<(printf %s {params.sources:q})"
        " --behaviour @<(printf %s {params.behaviour:q})"
        " --selection @<(printf %s {params.selection:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.table:q}"
        " --activations {output.activations:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule choose_direction:
    input:
        **FLOW.model_inputs("models/{directed_model}"),
        table="results/{study}/directions/{directed_model}/prompts.parquet",
        activations="results/{study}/directions/{directed_model}/activations.safetensors",
        source=lambda wildcards: source_files(
            FLOW, STUDY.directions, wildcards.direction
        ),
    output:
        candidates="results/{study}/directions/{directed_model}/{direction}/candidates.parquet",
        direction="results/{study}/directions/{directed_model}/{direction}/direction.safetensors",
    log:
        "results/{study}/logs/choose_direction/{directed_model}/{direction}.log",
    benchmark:
        "results/{study}/benchmarks/choose_direction/{directed_model}/{direction}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        settings=settings("directions", "prompts"),
        sources=settings("directions", "sources"),
        behaviour=settings("directions", "behaviour"),
        selection=settings("directions", "selection"),
        source=lambda wildcards, input: repeated("--source", input.source),
        hook=lambda wildcards: latent_options(
            STUDY, STUDY.directions, wildcards.direction
        ),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow directions choose"
        " --model {input.model:q}"
        " --direction {wildcards.direction:q}"
        " --table {input.table:q}"
        " --activations {input.activations:q}"
        " {params.source:q}"
        " {params.hook:q}"
        " {params.prompts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --sources @<(printf %s {params.sources:q})"
        " --behaviour @<(printf %s {params.behaviour:q})"
        " --selection @<(printf %s {params.selection:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.direction:q}"
        " --candidates {output.candidates:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule measure_direction:
    input:
        **FLOW.model_inputs("models/{directed_model}"),
        direction="results/{study}/directions/{directed_model}/{direction}/direction.safetensors",
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        edits="results/{study}/directions/{directed_model}/{direction}/edits.parquet",
        answers="results/{study}/directions/{directed_model}/{direction}/answers.parquet",
    log:
        "results/{study}/logs/measure_direction/{directed_model}/{direction}.log",
    benchmark:
        "results/{study}/benchmarks/measure_direction/{directed_model}/{direction}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        settings=settings("directions", "prompts"),
        sources=settings("directions", "sources"),
        behaviour=settings("directions", "behaviour"),
        measures=settings("directions", "measures"),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow directions measure"
        " --model {input.model:q}"
        " --direction {input.direction:q}"
        " --corpus {input.corpus:q}"
        " {params.prompts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --sources @<(printf %s {params.sources:q})"
        " --behaviour @<(printf %s {params.behaviour:q})"
        " --measures @<(printf %s {params.measures:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.edits:q}"
        " --answers {output.answers:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule judge_edits:
    input:
        "results/{study}/directions/{directed_model}/{direction}/answers.parquet",
    output:
        verdicts="results/{study}/directions/{directed_model}/{direction}/verdicts.parquet",
        judged="results/{study}/directions/{directed_model}/{direction}/judged.parquet",
    log:
        "results/{study}/logs/judge_edits/{directed_model}/{direction}.log",
    benchmark:
        "results/{study}/benchmarks/judge_edits/{directed_model}/{direction}.jsonl"
    # Calls need a network and no computer of their own, and word lists need less.
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        goal=PROMPTS.goal,
        goal_said=PROMPTS.goal_said,
        settings=settings("directions", "judged", "judge"),
        asked=settings("directions", "prompts"),
        sources=settings("directions", "sources"),
        measures=settings("directions", "measures"),
        calls=calls(FLOW),
        seed=STUDY.seed,
    shell:
        "saeflow directions judge {input:q}"
        " {params.prompts:q}"
        " --goal {params.goal:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --asked @<(printf %s {params.asked:q})"
        " --sources @<(printf %s {params.sources:q})"
        " --measures @<(printf %s {params.measures:q})"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --seed {params.seed:q}"
        " --verdicts {output.verdicts:q}"
        " --output {output.judged:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule transfer_directions:
    input:
        **FLOW.model_inputs("models/{directed_model}"),
        directions=collect(
            "results/{{study}}/directions/{model}/{direction}/direction.safetensors",
            model=DIRECTED,
            direction=FLOW.names["direction"],
        ),
        tables=collect(
            "results/{{study}}/directions/{model}/prompts.parquet", model=DIRECTED
        ),
        activations=collect(
            "results/{{study}}/directions/{model}/activations.safetensors",
            model=DIRECTED,
        ),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        transfer="results/{study}/directions/{directed_model}/transfer.parquet",
        angles="results/{study}/directions/{directed_model}/angles.parquet",
    log:
        "results/{study}/logs/transfer_directions/{directed_model}.log",
    benchmark:
        "results/{study}/benchmarks/transfer_directions/{directed_model}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        prompts=PROMPTS.options,
        said=PROMPTS.said,
        settings=settings("directions", "prompts"),
        sources=settings("directions", "sources"),
        behaviour=settings("directions", "behaviour"),
        selection=settings("directions", "selection"),
        measures=settings("directions", "measures"),
        vector_files=lambda wildcards, input: repeated("--direction", input.directions),
        table_files=lambda wildcards, input: repeated("--table", input.tables),
        value_files=lambda wildcards, input: repeated(
            "--activations", input.activations
        ),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow directions transfer"
        " --model {input.model:q}"
        " {params.vector_files:q}"
        " {params.table_files:q}"
        " {params.value_files:q}"
        " --corpus {input.corpus:q}"
        " {params.prompts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --sources @<(printf %s {params.sources:q})"
        " --behaviour @<(printf %s {params.behaviour:q})"
        " --selection @<(printf %s {params.selection:q})"
        " --measures @<(printf %s {params.measures:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.transfer:q}"
        " --angles {output.angles:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
