"""``saeflow steering capability``: what a goal's vectors cost the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options
from saeflow.analyses.steering.settings import Capability, Prompting


def capability(
    completions: Annotated[
        list[Path], typer.Argument(help="completions.parquet of every method of the goal.")
    ],
    vector: Annotated[
        list[Path],
        typer.Option(help="vector.safetensors of every completions.parquet, in their order."),
    ],
    model: options.ModelFolder,
    corpus: options.Corpus,
    settings: options.Settings,
    output: options.Output,
    questions: Annotated[
        Path | None, typer.Option(help="YAML file of multiple-choice questions.")
    ] = None,
    goal: Annotated[
        Path | None, typer.Option(help="The goal's YAML file, for methods in words.")
    ] = None,
    prompting: Annotated[
        str, typer.Option(help="The section `steering.prompting` of the config, as JSON.")
    ] = "null",
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure what a goal's vectors cost the model on held-out text and on questions, at the scales
    of their completions."""
    options.use_device(threads)
    from saeflow.analyses.steering.capability import behind, capabilities, exam
    from saeflow.analyses.steering.io import read_steered
    from saeflow.analyses.steering.prompting import words_of
    from saeflow.analyses.steering.schemas import CAPABILITY_SCHEMA
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import write_table

    chosen, lm = options.parsed(Capability, settings), options.open_model(model, dtype)
    asked = config.read_questions(questions) if questions else []
    vectors, scales = [], {}
    for path, file in zip(completions, vector, strict=True):
        written, steered = read_steered(path, file)
        vectors.append(steered)
        grid = written.select("scale_index", "scale").unique().sort("scale_index")
        scales[steered.method] = grid["scale"].to_list()
    blocks = load_blocks(corpus).tokens
    blocks = blocks[: -(-chosen.tokens // blocks.shape[1])]
    in_words = {}
    if goal and prompting != "null":
        said, topic = options.parsed(Prompting, prompting), config.read_goal(goal)
        in_words = {
            method: behind(lm, words_of(method, topic, said.examples).text, blocks, asked)
            for method in said.methods
        }
    measured = capabilities(
        lm,
        exam(lm, blocks, asked),
        vectors,
        scales,
        in_words,
        progress=options.progress("measure capability, vectors and scales"),
    )
    write_table(output, measured, CAPABILITY_SCHEMA)
