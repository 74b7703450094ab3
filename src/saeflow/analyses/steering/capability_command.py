"""``saeflow steering capability``: what a goal's vectors cost the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saeflow import config, options
from saeflow.analyses.steering.settings import Capability, Prompting

if TYPE_CHECKING:
    import polars as pl


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
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure what a goal's vectors cost the model on held-out text and on questions, at the scales
    of their completions."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.steering.capability import behind, capabilities, exam
    from saeflow.analyses.steering.io import read_steered
    from saeflow.analyses.steering.prompting import words_of
    from saeflow.analyses.steering.schemas import CAPABILITY_SCHEMA
    from saeflow.corpora.io import load_blocks
    from saeflow.parts import Parts
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
    words = {}
    if goal and prompting != "null":
        said, topic = options.parsed(Prompting, prompting), config.read_goal(goal)
        words = {method: words_of(method, topic, said.examples) for method in said.methods}
    in_words = {method: behind(lm, own.text, blocks, asked) for method, own in words.items()}
    made_from: dict[str, list[Any]] = {
        each.method: [each.vector, each.hook, each.goal, scales[each.method]] for each in vectors
    }
    made_from |= {
        method: [own.text, vectors[0].hook, vectors[0].goal] for method, own in words.items()
    }
    methods = list(made_from)

    def measure(places: list[int]) -> Iterator[pl.DataFrame]:
        return capabilities(
            lm,
            exam(lm, blocks, asked),
            vectors,
            scales,
            in_words,
            [methods[place] for place in places],
            progress=options.progress("measure capability, vectors and scales"),
        )

    code = ("analyses/steering/capability.py",)
    kept = Parts(parts, "capability", code, model, blocks, asked, dtype)
    measured = kept.tables(made_from, CAPABILITY_SCHEMA, measure)
    write_table(output, pl.concat(measured), CAPABILITY_SCHEMA)
