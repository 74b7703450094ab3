"""Probes activations and latents for what is known of texts.

Inputs:
    results/{study}/models/{model}/
    results/{study}/saes/{sae}/
    files of labelled texts that the catalogue names

Outputs, all in results/{study}/probing/:
    {probed_set}/rows.parquet, rows.safetensors    texts as they are read, their activations and latents
    words.parquet, words.safetensors               words of the vocabulary, for absorption
    {probed_set}/results.parquet, basis.parquet    every probe in every regime and seed; latents that tell
    {probed_set}/accuracy.parquet                  of one, two and five latents, as SAEBench has it
    absorption.parquet                             of latents of first letters, by SAE, letter and split
    sets, summary, differences, quiver, basis      each as .parquet and .csv
    saes                                           scores of SAEs, as .parquet and .csv
"""

from saeflow.analyses.probing.rules import (
    hook_options,
    letter_options,
    sae_inputs,
    sae_options,
)

PROBING = STUDY.probing
PROBED = FLOW.read["probing"]


# One job for all sets, as loading the model takes longer than reading a set.
rule read_probed:
    input:
        **FLOW.model_inputs(FLOW.model),
        saes=sae_inputs(FLOW, PROBING),
        files=[ancient(folder) for folder in PROBED.files.folders],
        local=PROBED.files.local,
    output:
        sets=shown("results/{study}/probing/sets.csv"),
        table="results/{study}/probing/sets.parquet",
        rows=collect(
            "results/{{study}}/probing/{probed_set}/rows.{end}",
            probed_set=PROBING.sets,
            end=["parquet", "safetensors"],
        ),
        words=[
            f"results/{{study}}/probing/words.{end}"
            for end in ("parquet", "safetensors")
            if PROBING.absorption
        ],
    log:
        "results/{study}/logs/read_probed.log",
    benchmark:
        "results/{study}/benchmarks/read_probed.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        sets=PROBED.said,
        files=PROBED.options,
        folders=lambda wildcards, input: repeated(
            "--sae", [str(Path(file).parent) for file in input.saes]
        ),
        places=sae_options(FLOW, PROBING),
        hooks=hook_options(FLOW, PROBING),
        settings=settings("probing", "reading"),
        words=PROBING.absorption.words if PROBING.absorption else 0,
        before=PROBING.absorption.shown if PROBING.absorption else 0,
        dtype=STUDY.model.dtype,
        seed=STUDY.seed,
    shell:
        "saeflow probing read"
        " --model {input.model:q}"
        " --sets @<(printf %s {params.sets:q})"
        " {params.files:q} {params.folders:q} {params.places:q} {params.hooks:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --words {params.words:q} --shown {params.before:q}"
        " --dtype {params.dtype:q}"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.table:q})"'
        " --threads {threads}"
        " > {log:q} 2>&1"


rule fit_probes:
    input:
        rows="results/{study}/probing/{probed_set}/rows.parquet",
        representations="results/{study}/probing/{probed_set}/rows.safetensors",
    output:
        results="results/{study}/probing/{probed_set}/results.parquet",
        basis="results/{study}/probing/{probed_set}/basis.parquet",
        accuracy="results/{study}/probing/{probed_set}/accuracy.parquet",
    log:
        "results/{study}/logs/fit_probes/{probed_set}.log",
    benchmark:
        "results/{study}/benchmarks/fit_probes/{probed_set}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        places=sae_options(FLOW, PROBING),
        settings=settings("probing", "fitting"),
        regimes=settings("probing", "regimes"),
        seed=STUDY.seed,
    shell:
        "saeflow probing fit"
        " --rows {input.rows:q}"
        " --representations {input.representations:q}"
        " {params.places:q}"
        " --settings @<(printf %s {params.settings:q})"
        " --regimes @<(printf %s {params.regimes:q})"
        " --set {wildcards.probed_set:q}"
        " --seed {params.seed:q}"
        " --output {output.results:q}"
        " --basis {output.basis:q}"
        " --accuracy {output.accuracy:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


if PROBING.absorption:

    rule measure_absorption:
        input:
            words="results/{study}/probing/words.parquet",
            representations="results/{study}/probing/words.safetensors",
            saes=sae_inputs(FLOW, PROBING),
        output:
            "results/{study}/probing/absorption.parquet",
        log:
            "results/{study}/logs/measure_absorption.log",
        benchmark:
            "results/{study}/benchmarks/measure_absorption.jsonl"
        conda:
            "../envs/default.yaml"
        threads: 1
        params:
            folders=lambda wildcards, input: repeated(
                "--sae", [str(Path(file).parent) for file in input.saes]
            ),
            places=sae_options(FLOW, PROBING),
            settings=settings("probing", "fitting"),
            seed=STUDY.seed,
        shell:
            "saeflow probing absorb"
            " --words {input.words:q}"
            " --representations {input.representations:q}"
            " {params.folders:q} {params.places:q}"
            " --settings @<(printf %s {params.settings:q})"
            " --seed {params.seed:q}"
            " --output {output:q}"
            " --threads {threads}"
            " > {log:q} 2>&1"


rule summarise_probes:
    input:
        results=collect(
            "results/{{study}}/probing/{probed_set}/results.parquet",
            probed_set=PROBING.sets,
        ),
        basis=collect(
            "results/{{study}}/probing/{probed_set}/basis.parquet",
            probed_set=PROBING.sets,
        ),
        accuracy=collect(
            "results/{{study}}/probing/{probed_set}/accuracy.parquet",
            probed_set=PROBING.sets,
        ),
        absorption=(
            ["results/{study}/probing/absorption.parquet"]
            if PROBING.absorption
            else []
        ),
    output:
        summary="results/{study}/probing/summary.parquet",
        summary_csv="results/{study}/probing/summary.csv",
        differences="results/{study}/probing/differences.parquet",
        quiver="results/{study}/probing/quiver.parquet",
        quiver_csv="results/{study}/probing/quiver.csv",
        basis="results/{study}/probing/basis.parquet",
        basis_csv="results/{study}/probing/basis.csv",
        saes="results/{study}/probing/saes.parquet",
        saes_csv="results/{study}/probing/saes.csv",
        shown=shown("results/{study}/probing/differences.csv"),
    log:
        "results/{study}/logs/summarise_probes.log",
    benchmark:
        "results/{study}/benchmarks/summarise_probes.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        basis=lambda wildcards, input: repeated("--basis", input.basis),
        accuracies=lambda wildcards, input: repeated("--accuracy", input.accuracy),
        absorbed=lambda wildcards, input: repeated("--absorption", input.absorption),
        least=letter_options(PROBING),
        places=sae_options(FLOW, PROBING),
        saes=given(FLOW.sae_descriptions()),
        settings=settings("probing", "comparison"),
        seed=STUDY.seed,
    shell:
        "saeflow probing summarise {input.results:q}"
        " {params.basis:q} {params.accuracies:q} {params.absorbed:q} {params.least:q}"
        " {params.places:q}"
        " --saes @<(printf %s {params.saes:q})"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        ' --output "$(dirname {output.summary:q})"'
        " > {log:q} 2>&1"
