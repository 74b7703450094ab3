"""Makes vectors of tasks that a model takes from examples, tries them, and cleans them in SAEs.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    lists of pairs, of the config or in workflow/tasks/

Outputs, in results/{study}/tasks/:
    vectors.safetensors, heads.parquet    vectors of all tasks; indirect effects of heads
    sweep.parquet, pairs.parquet          what vectors recover by layer; what the model says of pairs
    {sae}/{task}/curves.parquet, codes.parquet    cleaned vectors beside others, and their latents
    {sae}/latents.parquet, specificity.parquet, firing.parquet    what latents do alone, where they fire
"""

from saeflow.analyses.tasks import OF_A_TASK, OF_LATENTS
from saeflow.analyses.tasks.rules import layer_options

TASKS = STUDY.tasks
TASK_LISTS = FLOW.read["tasks"]


rule read_tasks:
    input:
        **FLOW.model_inputs(FLOW.model),
        lists=list(TASK_LISTS.files.values()),
    output:
        tensors="results/{study}/tasks/vectors.safetensors",
        heads="results/{study}/tasks/heads.parquet",
    log:
        "results/{study}/logs/read_tasks.log",
    benchmark:
        "results/{study}/benchmarks/read_tasks.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("tasks", "lists"),
        asked=settings("tasks", "prompts"),
        vectors=settings("tasks", "vectors"),
        lists=TASK_LISTS.options,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow tasks read"
        " --model {input.model:q}"
        " {params.lists:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --asked @<(printf %s {params.asked:q})"
        " --vectors @<(printf %s {params.vectors:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --tensors {output.tensors:q}"
        " --heads {output.heads:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule sweep_tasks:
    input:
        **FLOW.model_inputs(FLOW.model),
        lists=list(TASK_LISTS.files.values()),
        tensors="results/{study}/tasks/vectors.safetensors",
    output:
        sweep="results/{study}/tasks/sweep.parquet",
        pairs="results/{study}/tasks/pairs.parquet",
    log:
        "results/{study}/logs/sweep_tasks.log",
    benchmark:
        "results/{study}/benchmarks/sweep_tasks.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("tasks", "lists"),
        asked=settings("tasks", "prompts"),
        vectors=settings("tasks", "vectors"),
        lists=TASK_LISTS.options,
        layers=layer_options(FLOW, TASKS),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow tasks sweep"
        " --model {input.model:q}"
        " --tensors {input.tensors:q}"
        " {params.lists:q}"
        " {params.layers:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --asked @<(printf %s {params.asked:q})"
        " --vectors @<(printf %s {params.vectors:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output {output.sweep:q}"
        " --pairs {output.pairs:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule clean_task:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        lists=list(TASK_LISTS.files.values()),
        tensors="results/{study}/tasks/vectors.safetensors",
    output:
        collect(
            "results/{{study}}/tasks/{{sae}}/{{task}}/{table}.parquet", table=OF_A_TASK
        ),
    log:
        "results/{study}/logs/clean_task/{sae}/{task}.log",
    benchmark:
        "results/{study}/benchmarks/clean_task/{sae}/{task}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["cleaned_sae"]),
        task=one_of(FLOW.names["task"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("tasks", "lists"),
        asked=settings("tasks", "prompts"),
        vectors=settings("tasks", "vectors"),
        cleaning=settings("tasks", "cleaning"),
        lists=TASK_LISTS.options,
        hook=lambda wildcards: STUDY.hook_of(wildcards.sae),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow tasks clean"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --hook {params.hook:q}"
        " --task {wildcards.task:q}"
        " --tensors {input.tensors:q}"
        " {params.lists:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --asked @<(printf %s {params.asked:q})"
        " --vectors @<(printf %s {params.vectors:q})"
        " --cleaning @<(printf %s {params.cleaning:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/tasks/{wildcards.sae:q}/{wildcards.task:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule look_at_task_latents:
    input:
        **FLOW.model_inputs(FLOW.model),
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        lists=list(TASK_LISTS.files.values()),
        codes=collect(
            "results/{{study}}/tasks/{{sae}}/{task}/codes.parquet",
            task=FLOW.names["task"],
        ),
    output:
        collect("results/{{study}}/tasks/{{sae}}/{table}.parquet", table=OF_LATENTS),
    log:
        "results/{study}/logs/look_at_task_latents/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/look_at_task_latents/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["cleaned_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("tasks", "lists"),
        asked=settings("tasks", "prompts"),
        vectors=settings("tasks", "vectors"),
        cleaning=settings("tasks", "cleaning"),
        lists=TASK_LISTS.options,
        hook=lambda wildcards: STUDY.hook_of(wildcards.sae),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow tasks latents"
        " --model {input.model:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --hook {params.hook:q}"
        " {params.lists:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --asked @<(printf %s {params.asked:q})"
        " --vectors @<(printf %s {params.vectors:q})"
        " --cleaning @<(printf %s {params.cleaning:q})"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        " --output results/{wildcards.study:q}/tasks/{wildcards.sae:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"
