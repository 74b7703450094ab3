"""Turns text into blocks of tokens.

Inputs:
    the text, local or fetched, and the model's tokenizer, or nothing for the corpus `tales`

Outputs:
    results/{study}/corpus/{split}.safetensors
"""

# Nothing for `tales`, else the text and the model's tokenizer.
CORPUS_INPUTS = {}
if STUDY.corpus.kind != "tales":
    CORPUS_INPUTS = {
        "text": FLOW.texts,
        **FLOW.model_inputs(FLOW.model),
    }


rule write_corpus:
    input:
        **CORPUS_INPUTS,
    output:
        "results/{study}/corpus/{split}.safetensors",
    log:
        "results/{study}/logs/write_corpus/{split}.log",
    benchmark:
        "results/{study}/benchmarks/write_corpus/{split}.jsonl"
    conda:
        "../envs/default.yaml"
    threads: 1
    params:
        settings=settings("corpus"),
        model=lambda wildcards, input: (
            ["--model", input.model] if "model" in input.keys() else []
        ),
        text=FLOW.corpus_options,
        seed=STUDY.seed,
    shell:
        "saeflow corpus write"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --split {wildcards.split:q}"
        " --output {output:q} {params.model:q} {params.text:q}"
        " > {log:q} 2>&1"
