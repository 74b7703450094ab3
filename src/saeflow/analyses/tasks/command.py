"""``saeflow tasks``: tasks of examples as vectors and as latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from saeflow import options
from saeflow.analyses.tasks.settings import Cleaning, TaskLists, TaskPrompts, TaskVectors

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Split

app = typer.Typer(help="Make vectors of tasks.", no_args_is_help=True)
Prompts = Annotated[str, typer.Option("--asked", help="The section `tasks.prompts`, as JSON.")]
Made = Annotated[str, typer.Option("--vectors", help="The section `tasks.vectors`, as JSON.")]
Sections = Annotated[str, typer.Option("--settings", help="The section `tasks.lists`, as JSON.")]
Cleaned = Annotated[str, typer.Option("--cleaning", help="The section `tasks.cleaning`, as JSON.")]
VectorsFile = Annotated[Path, typer.Option("--tensors", help="vectors.safetensors of all tasks.")]
Lists = Annotated[
    list[str] | None,
    typer.Option("--list", help="TASK=FILE of its pairs; may be given several times."),
]


class Given(NamedTuple):
    """What every command is given."""

    splits: dict[str, Split]
    prompts: TaskPrompts
    vectors: TaskVectors


def given(settings: str, prompts: str, vectors: str, files: list[str] | None, seed: int) -> Given:
    """The pairs of every task, and how they are asked for."""
    from saeflow.analyses.tasks.lists import read_lists

    lists, shown = options.parsed(TaskLists, settings), options.parsed(TaskPrompts, prompts)
    asked = options.parsed(TaskVectors, vectors)
    return Given(read_lists(lists, shown, options.named_files(files), seed), shown, asked)


@app.callback()
def stage() -> None:
    """Make vectors of tasks that a model takes from examples, try them, and clean them in SAEs."""


@app.command()
def read(
    model: options.ModelFolder,
    settings: Sections,
    prompts: Prompts,
    vectors: Made,
    seed: options.Seed,
    tensors: VectorsFile,
    heads: Annotated[Path, typer.Option(help="Table of the heads' indirect effects.")],
    list_: Lists = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Make the vectors of every task."""
    options.use_device(threads)
    from saeflow.analyses.tasks.vectors import HEADS, heads_table, read_vectors, save_vectors
    from saeflow.tables import write_table

    splits, shown, asked = given(settings, prompts, vectors, list_, seed)
    lm = options.open_model(model, dtype)
    progress = options.progress("tasks: vectors made")
    made, effects = read_vectors(lm, splits, shown, asked, seed, progress)
    save_vectors(tensors, made)
    write_table(heads, heads_table(list(splits), effects, asked.heads), HEADS)


@app.command()
def sweep(
    model: options.ModelFolder,
    settings: Sections,
    prompts: Prompts,
    vectors: Made,
    seed: options.Seed,
    tensors: VectorsFile,
    output: Annotated[Path, typer.Option(help="Table of what vectors recover.")],
    pairs: Annotated[Path, typer.Option(help="Table of pairs and what the model says of them.")],
    layer: Annotated[
        list[int] | None, typer.Option(help="Of an SAE; may be given several times.")
    ] = None,
    list_: Lists = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Add the vectors of every task behind one layer after the other."""
    options.use_device(threads)
    from saeflow.analyses.tasks import sweep as trying
    from saeflow.analyses.tasks.vectors import Vectors
    from saeflow.tables import write_table

    splits, shown, asked = given(settings, prompts, vectors, list_, seed)
    lm = options.open_model(model, dtype)
    progress = options.progress("tasks: tasks tried")
    made = Vectors(tensors)
    tried, pair_rows = trying.sweep(lm, splits, made, shown, asked, layer or (), seed, progress)
    write_table(output, tried, trying.SWEEP)
    write_table(pairs, pair_rows, trying.PAIRS)


@app.command()
def clean(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    hook: options.HookName,
    task: Annotated[str, typer.Option(help="Whose vector is cleaned.")],
    settings: Sections,
    prompts: Prompts,
    vectors: Made,
    cleaning: Cleaned,
    seed: options.Seed,
    tensors: VectorsFile,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    list_: Lists = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Make few latents of an SAE of the vector of one task."""
    options.use_device(threads)
    from saeflow.analyses.tasks.comparing import CODES, CURVES, compare
    from saeflow.analyses.tasks.vectors import Vectors
    from saeflow.models.hooks import parse_hook
    from saeflow.tables import write_table

    splits, shown, asked = given(settings, prompts, vectors, list_, seed)
    own, pairs = options.parsed(Cleaning, cleaning), splits[task]
    lm = options.open_model(model, dtype)
    opened, layer = options.open_sae(sae), parse_hook(hook).layer
    progress = options.progress(f"tasks: {task}, steps")
    made = Vectors(tensors)
    compared = compare(lm, opened, layer, pairs, made, shown, asked, own, seed, task, progress)
    write_table(output / "curves.parquet", compared.curves, CURVES)
    write_table(output / "codes.parquet", compared.codes, CODES)


@app.command()
def latents(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    hook: options.HookName,
    settings: Sections,
    prompts: Prompts,
    vectors: Made,
    cleaning: Cleaned,
    seed: options.Seed,
    output: Annotated[
        Path, typer.Option(help="Folder of the tables; those of tasks lie below it.")
    ],
    list_: Lists = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Tell what latents of tasks do alone, and where they fire."""
    options.use_device(threads)
    from saeflow.analyses.tasks.comparing import CODES
    from saeflow.analyses.tasks.latents import FIRING, LATENTS, SPECIFICITY, look
    from saeflow.tables import read_table, write_table

    splits, shown, asked = given(settings, prompts, vectors, list_, seed)
    own = options.parsed(Cleaning, cleaning)
    codes = {task: read_table(output / task / "codes.parquet", CODES) for task in splits}
    lm, opened = options.open_model(model, dtype), options.open_sae(sae)
    tables = look(lm, opened, hook, splits, codes, shown, asked, own, seed)
    for name, schema in (("latents", LATENTS), ("specificity", SPECIFICITY), ("firing", FIRING)):
        write_table(output / f"{name}.parquet", getattr(tables, name), schema)
