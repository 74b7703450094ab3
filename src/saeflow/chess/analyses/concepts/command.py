"""``saeflow chess concepts``, ``associate``: concepts in an SAE's latents."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.concepts.settings import Concepts

app = typer.Typer()


@app.command()
def concepts(
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    split: chess_options.Split = "eval",
    threads: options.Threads = 1,
) -> None:
    """Say which concepts hold in which positions, and which games are held out."""
    options.set_pools(threads)
    from saeflow.chess.analyses.concepts.io import save_labels
    from saeflow.chess.analyses.concepts.labelling import label_positions
    from saeflow.chess.games.io import load_examples

    wanted = options.parsed(Concepts, settings)
    save_labels(output, label_positions(load_examples(positions, split), wanted, seed))


@app.command()
def associate(
    model: options.ModelFolder,
    hook: chess_options.SiteName,
    sae: options.SAEFolder,
    positions: chess_options.Positions,
    labels: chess_options.LabelsFile,
    settings: options.Settings,
    seed: options.Seed,
    output: chess_options.Folder,
    split: chess_options.Split = "eval",
    tokens: chess_options.Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Find the latents that tell each concept, and fit probes and differences of means beside
    them."""
    options.use_device(threads)
    from saeflow.chess.analyses.concepts.association import associate as find
    from saeflow.chess.analyses.concepts.example_boards import example_boards
    from saeflow.chess.analyses.concepts.io import write_tables
    from saeflow.chess.analyses.concepts.probes import probe_kept

    wanted, here = (
        options.parsed(Concepts, settings),
        chess_options.open_site(model, hook, sae, tokens),
    )
    examples, labelled, read = chess_options.read_labelled(here, positions, split, labels)
    table, associations = find(read.latents, labelled, wanted, seed)
    write_tables(
        output,
        concepts=table,
        associations=associations,
        probes=probe_kept(read.activations, labelled, table, wanted),
        boards=example_boards(read.latents, examples, labelled, associations),
    )
