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
    import numpy as np

    from saeflow.chess.analyses.concepts.association import ASSOCIATIONS, CONCEPTS
    from saeflow.chess.analyses.concepts.association import associate as find
    from saeflow.chess.analyses.concepts.directions import concept_directions
    from saeflow.chess.analyses.concepts.example_boards import BOARDS, example_boards
    from saeflow.chess.analyses.concepts.io import read_labelled, save_directions
    from saeflow.chess.analyses.concepts.probes import PROBES, fit, measure
    from saeflow.tables import write_table

    wanted = options.parsed(Concepts, settings)
    site = chess_options.open_site(model, hook, sae, tokens)
    examples, labelled, read = read_labelled(site, positions, split, labels)
    studied, associations = find(read.latents, labelled, wanted, seed)
    kept = np.flatnonzero(studied["skipped"].is_null().to_numpy())
    fitted = fit(read.activations, labelled, kept, wanted)
    probes = measure(fitted, read.activations, labelled, kept, wanted)
    directions = concept_directions(fitted, read.activations, labelled, kept)
    boards = example_boards(read.latents, examples, labelled, associations)
    write_table(output / "concepts.parquet", studied, CONCEPTS)
    write_table(output / "associations.parquet", associations, ASSOCIATIONS)
    write_table(output / "probes.parquet", probes, PROBES)
    write_table(output / "boards.parquet", boards, BOARDS)
    save_directions(output / "directions.safetensors", directions, hook)
