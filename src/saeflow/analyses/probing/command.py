"""``saeflow probing``: what probes tell of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.probing.settings import Comparison, Fitting, Reading, Regimes
from saeflow.config.sections.labelled import LabelledTexts

app = typer.Typer(help="Probe activations and latents.", no_args_is_help=True)
Places = Annotated[
    list[str], typer.Option("--place", help="name=hook: where an SAE reads; once for each.")
]


@app.callback()
def stage() -> None:
    """Probe activations and latents for what is known of texts."""


@app.command()
def read(
    model: options.ModelFolder,
    sets: Annotated[str, typer.Option(help="The sets of labelled texts by name, as JSON.")],
    hooks: options.HookNames,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    files: Annotated[
        list[str] | None, typer.Option("--file", help="set=file, or set/test_set=file.")
    ] = None,
    saes: Annotated[
        list[Path] | None, typer.Option("--sae", help="Folder of an SAE; in the order of --place.")
    ] = None,
    places: Places = [],  # noqa: B006 - typer's way
    words: Annotated[
        int, typer.Option(help="Words of the vocabulary to read, too, for absorption.", min=0)
    ] = 0,
    shown: Annotated[
        int, typer.Option(help="Words with their first letters before each of these.", min=0)
    ] = 0,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Write activations and latents of the texts of all sets, from the same forward passes."""
    options.use_device(threads)
    from saeflow.analyses.probing.quality import write_words
    from saeflow.analyses.probing.tables import Readers, write_rows

    chosen = options.parsed(Reading, settings)
    named = options.parsed_by_name(LabelledTexts, sets)
    hook_of = options.named_values(places)
    opened = {
        name: (hook, options.open_sae(folder))
        for (name, hook), folder in zip(hook_of.items(), saes or [], strict=True)
    }
    readers = Readers(options.open_model(model, dtype), hooks, opened)
    write_rows(output, named, options.named_files(files), readers, chosen, seed, options.progress)
    if words:
        write_words(output, readers, words, shown, seed, options.progress("words"))


@app.command()
def fit(
    rows: Annotated[Path, typer.Option(help="rows.parquet of a set.")],
    representations: Annotated[Path, typer.Option(help="rows.safetensors of the set.")],
    settings: options.Settings,
    regimes: Annotated[str, typer.Option(help="The section of regimes, as JSON.")],
    name: Annotated[str, typer.Option("--set", help="Name of the set.")],
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="results.parquet")],
    basis: Annotated[Path, typer.Option(help="basis.parquet: latents that sparse probes choose.")],
    accuracy: Annotated[
        Path,
        typer.Option(help="accuracy.parquet: of one, two and five latents, as SAEBench's."),
    ],
    places: Places = [],  # noqa: B006 - typer's way
    threads: options.Threads = 1,
) -> None:
    """Fit and test all probes on one set, in every regime and for every seed."""
    options.set_pools(threads)
    from saeflow.analyses.probing.tables import probe_rows

    probe_rows(
        name,
        rows,
        representations,
        options.parsed(Fitting, settings),
        options.parsed(Regimes, regimes),
        options.named_values(places),
        seed,
        (output, basis, accuracy),
        options.progress(f"probes of {name}, seeds"),
    )


@app.command()
def absorb(
    words: Annotated[Path, typer.Option(help="words.parquet")],
    representations: Annotated[Path, typer.Option(help="words.safetensors")],
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="absorption.parquet")],
    saes: Annotated[list[Path], typer.Option("--sae", help="Folder of an SAE, as --place has it.")],
    places: Places,
    threads: options.Threads = 1,
) -> None:
    """Measure how often latents of first letters are absorbed by others, for every SAE.

    Settings are those of the section of fitting, which says how many splits are drawn.
    """
    options.set_pools(threads)
    from saeflow.analyses.probing.quality import write_absorption

    folders = dict(zip(options.named_values(places).items(), saes, strict=True))
    write_absorption(
        output, words, representations, folders, options.parsed(Fitting, settings), seed
    )


@app.command()
def summarise(
    results: Annotated[list[Path], typer.Argument(help="results.parquet of every set.")],
    bases: Annotated[list[Path], typer.Option("--basis", help="basis.parquet of every set.")],
    accuracies: Annotated[
        list[Path], typer.Option("--accuracy", help="accuracy.parquet of every set.")
    ],
    places: Places,
    saes: Annotated[str, typer.Option(help="By the names of the SAEs, what each is, as JSON.")],
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="The folder of the tables.")],
    absorption: Annotated[Path | None, typer.Option(help="absorption.parquet")] = None,
    probe_f1: Annotated[
        float, typer.Option(help="F1 above which a probe on activations knows a letter.")
    ] = 0.6,
    letters: Annotated[
        int, typer.Option(help="Letters that it must know for an SAE to be given a score.")
    ] = 20,
) -> None:
    """Write means over seeds, differences across sets, the quiver, what probes rest on, and scores
    of SAEs."""
    options.set_pools(1)
    from saeflow.analyses.probing.quality import LeastKnown, controls_of, write_scores
    from saeflow.analyses.probing.tables import write_summaries

    hook_of, described = options.named_values(places), options.parsed_facts(saes, "--saes")
    probed = {name: described[name] for name in hook_of}
    chosen = options.parsed(Comparison, settings)
    write_summaries(output, results, bases, chosen, seed, controls_of(probed))
    least = LeastKnown(probe_f1, letters)
    write_scores(output, probed, hook_of, accuracies, absorption, least)
