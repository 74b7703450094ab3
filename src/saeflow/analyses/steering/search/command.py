"""``saeflow steering search`` and ``steering choose``: layers and scales within a budget."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from saeflow import config, options
from saeflow.analyses.steering.methods import AT_ANY_LAYER
from saeflow.analyses.steering.settings import Completions, Search, Summary

SearchSettings = Annotated[
    str,
    typer.Option("--search", help="The section `steering.search` of the config, as JSON."),
]


def search(
    vectors: Annotated[
        list[Path],
        typer.Argument(
            help="vector.safetensors of the goal at the study's hook, of every method searched."
        ),
    ],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    model: options.ModelFolder,
    corpus: options.Corpus,
    hook: options.HookName,
    settings: options.Settings,
    search: SearchSettings,
    activations: Annotated[
        str, typer.Option(help="The section `activations` of the config, as JSON.")
    ],
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of what is tried.")],
    caa_positions: Annotated[
        Literal["mean", "last"], typer.Option(help="What of an example counts for `caa`.")
    ] = "mean",
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
    decode: options.Decode = "eager",
) -> None:
    """Complete the prompts with a goal's vectors at every layer and scale, and measure how far each
    moves the model."""
    options.use_device(threads)
    import polars as pl
    import torch

    from saeflow.analyses.steering.io import load_vectors, save_vector
    from saeflow.analyses.steering.schemas import SEARCHED_SCHEMA
    from saeflow.analyses.steering.search.candidates import (
        LayerVectors,
        build_at,
        complete_layer,
        hook_behind,
        layer_divergences,
        mean_norms,
    )
    from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
    from saeflow.corpora.io import load_blocks
    from saeflow.models.hooks import parse_hook
    from saeflow.parts import Parts
    from saeflow.tables import write_table

    asked, written = options.parsed(Search, search), options.parsed(Completions, settings)
    changed = {"scales": [0.0, *asked.scales], "samples": asked.samples or written.samples}
    written = written.model_copy(update=changed)
    left_out = options.parsed(config.Activations, activations)
    lm, own = options.open_model(model, dtype), parse_hook(hook).layer
    hooks = [hook_behind(layer) for layer in sorted({own, *asked.layers})]
    blocks = torch.from_numpy(load_blocks(corpus).tokens).long()
    norms = mean_norms(lm, blocks[: -(-asked.tokens // blocks.shape[1])], hooks, left_out)
    built = build_at(
        lm,
        config.read_goal(goal),
        goal.stem,
        [each for each in hooks if each != hook],
        [method for method in asked.methods if method in AT_ANY_LAYER],
        caa_positions,
        seed,
    )
    built[hook] = load_vectors(vectors)
    code = ("analyses/steering/completions.py", "analyses/steering/search/candidates.py")
    kept = Parts(parts, "search", code, model, written, seed, dtype, decode)
    moved = Parts(
        parts, "search_divergence", (*code, "analyses/steering/divergence.py"), model, dtype
    )
    completions, divergence = [], []
    for at in hooks:
        tried, layer = LayerVectors(built[at], norms[at]), f"layer-{parse_hook(at).layer}"
        made_from = [at, at == hook, norms[at], goal.stem]
        made_from += [[each.vector, each.method, each.norm] for each in tried.vectors]
        complete = partial(
            complete_layer,
            lm,
            tried,
            written,
            seed,
            unsteered=at == hook,
            progress=options.progress(f"complete prompts at {at}, completions"),
            recorded=decode == "recorded",
        )
        table = kept.table(layer, SEARCHED_SCHEMA, made_from, complete)
        measure = partial(
            layer_divergences,
            lm,
            tried,
            table,
            options.progress(f"divergence at {at}, completions"),
        )
        completions.append(table)
        divergence.append(moved.table(layer, DIVERGENCE_SCHEMA, [*made_from, table], measure))
        for each in tried.vectors:
            described = {**each.metadata, "mean_norm": norms[at]}
            save_vector(
                output / f"{each.method}-{layer}" / "vector.safetensors",
                each._replace(metadata=described),
            )
    write_table(output / "completions.parquet", pl.concat(completions), SEARCHED_SCHEMA)
    write_table(output / "divergence.parquet", pl.concat(divergence), DIVERGENCE_SCHEMA)


def choose(
    completions: Annotated[
        list[Path], typer.Argument(help="search/completions.parquet of every goal.")
    ],
    scores: Annotated[list[Path], typer.Option(help="search/scores.parquet of every goal.")],
    divergence: Annotated[
        list[Path], typer.Option(help="search/divergence.parquet of every goal.")
    ],
    layer: Annotated[int, typer.Option(help="The layer of the study's hook.")],
    settings: options.Settings,
    search: SearchSettings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    threads: options.Threads = 1,
) -> None:
    """Choose each goal's layer and scale on one half of the completions, and report the other."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.analyses.steering.schemas import SEARCHED_SCHEMA
    from saeflow.analyses.steering.search.selection import choose_within, write_choices
    from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
    from saeflow.judging.io import read_scores
    from saeflow.judging.scores import require_scores
    from saeflow.tables import read_table

    judged = pl.concat([read_scores(path) for path in scores])
    require_scores(judged)
    chosen = choose_within(
        pl.concat([read_table(path, SEARCHED_SCHEMA) for path in completions]),
        judged,
        pl.concat([read_table(path, DIVERGENCE_SCHEMA) for path in divergence]),
        options.parsed(Search, search),
        options.parsed(Summary, settings),
        layer,
        seed,
    )
    write_choices(output, chosen)
