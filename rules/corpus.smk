"""Turns text into blocks of tokens.

Inputs:
    the text, local or fetched, and the model's tokenizer, or nothing for the corpus `tales`

Outputs:
    results/{study}/corpus/{split}.safetensors
"""


rule write_corpus:
    input:
        **corpus_inputs(),
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
        model=model_option,
        text=text_option,
        seed=STUDY.seed,
    shell:
        "saeflow corpus write"
        " --settings @<(printf %s {params.settings:q})"
        " --seed {params.seed:q}"
        " --split {wildcards.split:q}"
        " --output {output:q} {params.model:q} {params.text:q}"
        " > {log:q} 2>&1"
