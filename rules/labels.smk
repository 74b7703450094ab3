"""Labels latents in words.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/corpus/eval.safetensors
    results/{study}/examples/{sae}/latents.parquet
    results/{study}/logit_lens/{sae}/tokens.parquet
    results/{study}/steering/targets.parquet, where targets of goals are labelled
    files of labels that the config names

Outputs, all in results/{study}/labels/{sae}/:
    latents.parquet                   which latents get labels
    tokens.parquet, import.parquet, self.parquet     labels of one source
    self_texts.parquet, self_read_outs.parquet       what was said, and what was read at each scale
    labels.parquet, labels.csv        all labels beside each other
"""

from saeflow.analyses.labels.rules import imported_file, target_table


rule choose_labelled:
    input:
        examples="results/{study}/examples/{sae}/latents.parquet",
        targets=lambda wildcards: target_table(FLOW, wildcards.sae),
    output:
        "results/{study}/labels/{sae}/latents.parquet",
    log:
        "results/{study}/logs/choose_labelled/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/choose_labelled/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("labels", "latents"),
        targets=lambda wildcards, input: repeated("--targets", input.targets),
        seed=STUDY.seed,
    shell:
        "saeflow labels choose"
        " --examples {input.examples:q}"
        " --sae-name {wildcards.sae:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " {params.targets:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule label_by_tokens:
    input:
        latents="results/{study}/labels/{sae}/latents.parquet",
        lens="results/{study}/logit_lens/{sae}/tokens.parquet",
        examples="results/{study}/examples/{sae}/latents.parquet",
    output:
        "results/{study}/labels/{sae}/tokens.parquet",
    log:
        "results/{study}/logs/label_by_tokens/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/label_by_tokens/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("labels", "wording"),
    shell:
        "saeflow labels from-tokens"
        " --latents {input.latents:q}"
        " --lens {input.lens:q}"
        " --examples {input.examples:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule import_labels:
    input:
        latents="results/{study}/labels/{sae}/latents.parquet",
        file=lambda wildcards: imported_file(FLOW, wildcards.sae),
    output:
        "results/{study}/labels/{sae}/import.parquet",
    log:
        "results/{study}/logs/import_labels/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/import_labels/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    shell:
        "saeflow labels import"
        " --latents {input.latents:q}"
        " --file {input.file:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule label_by_self:
    input:
        **FLOW.model_inputs(FLOW.model),
        latents="results/{study}/labels/{sae}/latents.parquet",
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
    output:
        labels="results/{study}/labels/{sae}/self.parquet",
        texts="results/{study}/labels/{sae}/self_texts.parquet",
        read_outs="results/{study}/labels/{sae}/self_read_outs.parquet",
    log:
        "results/{study}/logs/label_by_self/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/label_by_self/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("labels", "self_explanation"),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow labels from-self"
        " --latents {input.latents:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output {output.labels:q}"
        " --texts {output.texts:q}"
        " --read-outs {output.read_outs:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule join_labels:
    input:
        labels=collect(
            "results/{{study}}/labels/{{sae}}/{label_source}.parquet",
            label_source=STUDY.labels.sources,
        ),
    output:
        table="results/{study}/labels/{sae}/labels.parquet",
        csv="results/{study}/labels/{sae}/labels.csv",
    log:
        "results/{study}/logs/join_labels/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/join_labels/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    shell:
        "saeflow labels join {input.labels:q}"
        " --sae-name {wildcards.sae:q}"
        " --output {output.table:q}"
        " --csv {output.csv:q}"
        " > {log:q} 2>&1"
