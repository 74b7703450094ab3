"""``saeflow steering complete-in-words``: completions behind an instruction or examples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options
from saeflow.analyses.steering.settings import Completions, Prompting


def complete_in_words(
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    model: options.ModelFolder,
    hook: options.HookName,
    settings: options.Settings,
    prompting: Annotated[
        str, typer.Option(help="The section `steering.prompting` of the config, as JSON.")
    ],
    seed: options.Seed,
    output: Annotated[
        Path, typer.Option(help="Folder of the goal, in which every method gets one.")
    ],
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Complete the prompts behind the words of every method that says some."""
    options.use_device(threads)
    from saeflow.analyses.steering.prompting import complete_in_words as completed
    from saeflow.analyses.steering.prompting import prompts_read, words_of
    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA, PROMPTS_SCHEMA
    from saeflow.parts import Parts
    from saeflow.tables import write_table

    chosen, said = options.parsed(Completions, settings), options.parsed(Prompting, prompting)
    lm, topic = options.open_model(model, dtype), config.read_goal(goal)
    code = tuple(f"analyses/steering/{name}.py" for name in ("prompting", "completions"))
    kept = Parts(parts, "in_words", code, model, chosen, seed, dtype)
    for method in said.methods:
        words = words_of(method, topic, said.examples)
        complete = partial(completed, lm, hook, words, chosen, seed, goal.stem, method)
        made_from = [words.text, hook, goal.stem, method]
        table = kept.table(method, COMPLETIONS_SCHEMA, made_from, complete)
        read = prompts_read(lm, words, chosen)
        write_table(output / method / "prompts.parquet", read, PROMPTS_SCHEMA)
        write_table(output / method / "completions.parquet", table, COMPLETIONS_SCHEMA)
