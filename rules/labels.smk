"""Labels latents in words.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    results/{study}/corpus/eval.safetensors
    results/{study}/examples/{sae}/latents.parquet
    results/{study}/logit_lens/{sae}/tokens.parquet
    results/{study}/steering/targets.parquet, where targets of goals are labelled
    results/{study}/diffing/saes/{sae}/latents.parquet, decoders.parquet, contexts.parquet of crosscoders
    files of labels that the config names

Outputs, all in results/{study}/labels/{sae}/:
    latents.parquet                   which latents get labels
    passages.parquet                                 what models are shown and asked about
    tokens.parquet, import.parquet, self.parquet, adapted.parquet, explainer.parquet    labels of one
                                      source
    adapter.safetensors, adapter.parquet             scale and bias, and what they do for other words
    self_texts.parquet, self_read_outs.parquet       what was said, and what was read at each scale
    answers.parquet, scores.parquet                  what was answered about labels
    labels.parquet, labels.csv, summary.parquet      all labels beside each other; means of scores
    results/{study}/judging/ledger.sqlite, which is no output of a rule: what was paid for outlives
    every rerun
"""

from saeflow.analyses.diffing import base as compared_with
from saeflow.analyses.labels.rules import (
    dreams_of,
    hook_option,
    imported_file,
    label_files,
    lens_table,
    target_table,
)
from saeflow.analyses.steering.rules import calls

ASKING = FLOW.read["labels"]
ASKS_ENDPOINT = STUDY.labels.asked.kind == "openai"
NORMED = repeated("--cached", [":".join(place) for place in FLOW.cached_places()])


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
        sae=one_of(FLOW.names["labelled_own_sae"]),
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
        sae=one_of(FLOW.names["labelled_own_sae"]),
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


rule label_crosscoder:
    input:
        latents="results/{study}/diffing/saes/{sae}/latents.parquet",
        decoders="results/{study}/diffing/saes/{sae}/decoders.parquet",
        contexts="results/{study}/diffing/saes/{sae}/contexts.parquet",
    output:
        chosen="results/{study}/labels/{sae}/latents.parquet",
        labels="results/{study}/labels/{sae}/tokens.parquet",
    log:
        "results/{study}/logs/label_crosscoder/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/label_crosscoder/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_crosscoder"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("labels", "wording"),
    shell:
        "saeflow labels from-decoders"
        " --latents {input.latents:q}"
        " --decoders {input.decoders:q}"
        " --contexts {input.contexts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --chosen {output.chosen:q}"
        " --output {output.labels:q}"
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
        sae=one_of(FLOW.names["labelled_own_sae"]),
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


rule label_by_adapter:
    input:
        **FLOW.model_inputs(FLOW.model),
        latents="results/{study}/labels/{sae}/latents.parquet",
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        corpus="results/{study}/corpus/eval.safetensors",
        lens=lens_table(FLOW),
    output:
        labels="results/{study}/labels/{sae}/adapted.parquet",
        weights="results/{study}/labels/{sae}/adapter.safetensors",
        held_out="results/{study}/labels/{sae}/adapter.parquet",
    log:
        "results/{study}/logs/label_by_adapter/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/label_by_adapter/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_own_sae"]),
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("labels", "self_explanation"),
        adapter=settings("labels", "adapter"),
        lens=lambda wildcards, input: repeated("--lens", input.lens),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow labels from-adapter"
        " --latents {input.latents:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " --corpus {input.corpus:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --adapter @<(printf %s {params.adapter:q})"
        " {params.lens:q}"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --output {output.labels:q}"
        " --weights {output.weights:q}"
        " --held-out {output.held_out:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule gather_passages:
    input:
        latents="results/{study}/labels/{sae}/latents.parquet",
        rows="results/{study}/examples/{sae}/rows.parquet",
        corpus="results/{study}/corpus/sae.safetensors",
    output:
        "results/{study}/labels/{sae}/passages.parquet",
    log:
        "results/{study}/logs/gather_passages/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/gather_passages/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_own_sae"]),
    localrule: True
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("labels", "passages"),
        seed=STUDY.seed,
    shell:
        "saeflow labels gather"
        " --latents {input.latents:q}"
        ' --examples "$(dirname {input.rows:q})"'
        " --corpus {input.corpus:q}"
        " --sae-name {wildcards.sae:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


if STUDY.diffing:

    rule gather_crosscoder_passages:
        input:
            models=lambda wildcards: FLOW.read_models(wildcards.sae),
            checksums=lambda wildcards: FLOW.read_models(
                wildcards.sae, ".checksums.json"
            ),
            latents="results/{study}/labels/{sae}/latents.parquet",
            sae="results/{study}/saes/{sae}/sae_weights.safetensors",
            corpus="results/{study}/corpus/eval.safetensors",
        output:
            "results/{study}/labels/{sae}/passages.parquet",
        log:
            "results/{study}/logs/gather_crosscoder_passages/{sae}.log",
        benchmark:
            "results/{study}/benchmarks/gather_crosscoder_passages/{sae}.jsonl"
        wildcard_constraints:
            sae=one_of(FLOW.names["labelled_crosscoder"]),
        conda:
            "../envs/default.yaml"
        threads: 1
        resources:
            gpu=1,
        params:
            models=lambda wildcards, input: repeated("--model", input.models),
            base=compared_with(STUDY, STUDY.diffing),
            settings=settings("labels", "passages"),
            classes=settings("diffing", "classes"),
            activations=settings("activations"),
            normed=NORMED,
            dtype=STUDY.model.dtype,
            seed=STUDY.seed,
        shell:
            "saeflow labels gather-of-models"
            " --latents {input.latents:q}"
            " {params.models:q}"
            ' --sae "$(dirname {input.sae:q})"'
            " --sae-name {wildcards.sae:q}"
            " --base {params.base:q}"
            " --corpus {input.corpus:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --classes @<(printf %s {params.classes:q})"
            " --activations @<(printf %s {params.activations:q})"
            " {params.normed:q}"
            " --seed {params.seed:q}"
            " --dtype {params.dtype:q}"
            " --output {output:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


rule explain_latents:
    input:
        **FLOW.model_inputs(FLOW.model),
        latents="results/{study}/labels/{sae}/latents.parquet",
        passages="results/{study}/labels/{sae}/passages.parquet",
    output:
        "results/{study}/labels/{sae}/explainer.parquet",
    log:
        "results/{study}/logs/explain_latents/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/explain_latents/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: ASKS_ENDPOINT
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=0 if ASKS_ENDPOINT else 1,
    params:
        prompts=ASKING.path,
        said=ASKING.said,
        settings=settings("labels", "asked"),
        calls=calls(FLOW),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow labels explain"
        " --latents {input.latents:q}"
        " --passages {input.passages:q}"
        " --model {input.model:q}"
        " --prompts {params.prompts:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --output {output:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule score_labels:
    input:
        **FLOW.model_inputs(FLOW.model),
        labels=lambda wildcards: label_files(FLOW, wildcards.sae),
        passages="results/{study}/labels/{sae}/passages.parquet",
        sae=artifact("saes/{sae}/sae_weights.safetensors"),
        dreams=lambda wildcards: dreams_of(FLOW, wildcards.sae),
    output:
        answers="results/{study}/labels/{sae}/answers.parquet",
        scores="results/{study}/labels/{sae}/scores.parquet",
    log:
        "results/{study}/logs/score_labels/{sae}.log",
    benchmark:
        "results/{study}/benchmarks/score_labels/{sae}.jsonl"
    wildcard_constraints:
        sae=one_of(FLOW.names["labelled_sae"]),
    localrule: ASKS_ENDPOINT
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        prompts=ASKING.path,
        said=ASKING.said,
        asked=settings("labels", "asked"),
        settings=settings("labels", "scores"),
        calls=calls(FLOW),
        dreams=lambda wildcards, input: repeated("--dreams", input.dreams),
        hook=lambda wildcards: hook_option(FLOW, wildcards.sae),
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow labels score {input.labels:q}"
        " --passages {input.passages:q}"
        ' --sae "$(dirname {input.sae:q})"'
        " --model {input.model:q}"
        " {params.hook:q}"
        " --prompts {params.prompts:q}"
        " --asked @<(printf %s {params.asked:q})"
        " --settings @<(printf %s {params.settings:q})"
        " {params.dreams:q}"
        " --seed {params.seed:q}"
        " --dtype {params.dtype:q}"
        " --ledger results/{wildcards.study:q}/judging/ledger.sqlite"
        " --calls @<(printf %s {params.calls:q})"
        " --output {output.scores:q}"
        " --answers {output.answers:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule join_labels:
    input:
        labels=lambda wildcards: label_files(FLOW, wildcards.sae),
        scores=(
            ["results/{study}/labels/{sae}/scores.parquet"]
            if STUDY.labels.scores.kinds
            else []
        ),
    output:
        table="results/{study}/labels/{sae}/labels.parquet",
        csv="results/{study}/labels/{sae}/labels.csv",
        summary="results/{study}/labels/{sae}/summary.parquet",
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
    params:
        settings=settings("labels", "scores"),
        scores=lambda wildcards, input: repeated("--scores", input.scores),
        seed=STUDY.seed,
    shell:
        "saeflow labels join {input.labels:q}"
        " --sae-name {wildcards.sae:q}"
        " {params.scores:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --output {output.table:q}"
        " --csv {output.csv:q}"
        " --summary {output.summary:q}"
        " > {log:q} 2>&1"
