"""``saeflow diffing``: what sets models apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from saeflow import options
from saeflow.analyses.diffing.settings import Baselines, Causal, Classes, Matching, Shown
from saeflow.config.sections import Activations
from saeflow.errors import SaeflowError

app = typer.Typer(help="Compare models.", no_args_is_help=True)

Models = Annotated[list[Path], typer.Option("--model", help="Folder of every model that is read.")]
Base = Annotated[str, typer.Option(help="Name of the model that others are compared with.")]
ClassBounds = Annotated[
    str, typer.Option("--classes", help="The section `diffing.classes`, as JSON.")
]
Exclusion = Annotated[
    str, typer.Option("--activations", help="The section `activations`, as JSON.")
]
Cached = Annotated[
    list[str],
    typer.Option(help="Hook of the study's caches, as model:hook, whose norms count."),
]
Latents = Annotated[Path, typer.Option(help="latents.parquet of the crosscoder.")]
Folder = Annotated[Path, typer.Option("--output", help="Folder that the tables are written to.")]


@app.callback()
def stage() -> None:
    """Compare models."""


@app.command()
def compare(
    model: Annotated[
        list[Path], typer.Option(help="Folders of the base model and of the compared one.")
    ],
    hook: options.HookName,
    corpus: options.Corpus,
    settings: options.Settings,
    classes: ClassBounds,
    activations: Exclusion,
    seed: options.Seed,
    output: Folder,
    cached: Cached = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Tell two models apart without a dictionary: by predictions, activations and weights."""
    options.use_device(threads)
    from saeflow.analyses.diffing import differences, divergence, steered
    from saeflow.analyses.diffing.io import save_difference
    from saeflow.analyses.diffing.opening import hooks_by_model
    from saeflow.analyses.diffing.texts import Text, check_comparable
    from saeflow.analyses.diffing.weights import WEIGHTS, weight_differences
    from saeflow.models.language_model import load_to_train
    from saeflow.saes.comparison import Seen
    from saeflow.tables import write_table

    asked = options.parsed(Baselines, settings)
    resampled = options.parsed(Classes, classes)
    if len(model) != 2:
        raise SaeflowError(f"--model: {len(model)} folders; give the base and the compared model")
    plain = [load_to_train(folder, dtype=dtype).model for folder in model]
    moved = weight_differences(*plain)
    del plain
    base, tuned = (Seen(folder.name, options.open_model(folder, dtype), hook) for folder in model)
    tokens = _blocks(corpus, asked.blocks)
    check_comparable(base, tuned, tokens)
    text = Text(
        [base, tuned],
        tokens,
        options.parsed(Activations, activations),
        hooks_by_model(cached),
    )
    measured = differences.measure_differences(text, asked)
    apart = divergence.measure_divergence(text, asked, resampled, seed)
    own = asked.steering
    said = steered.continuations(
        base,
        tuned,
        steered.openings(tokens, own),
        steered.additions(measured.mean, measured.activation_norm, own, seed),
        own.new_tokens,
    )
    save_difference(output / "difference.safetensors", measured, base.name, tuned.name, hook)
    tables: dict[str, tuple[Any, Any]] = {
        "divergence": (apart.table, divergence.DIVERGENCE),
        "places": (apart.places, divergence.PLACES),
        "tokens": (apart.tokens, divergence.TOKENS),
        "differences": (measured.table, differences.DIFFERENCES),
        "components": (measured.spectrum, differences.COMPONENTS),
        "lens": (differences.lens_table(tuned.lm, measured, asked.tokens), differences.LENS),
        "weights": (moved, WEIGHTS),
        "continuations": (said, steered.CONTINUATIONS),
        "steered": (steered.summarise(said, resampled, seed), steered.STEERED),
    }
    for name, (table, schema) in tables.items():
        write_table(output / f"{name}.parquet", table, schema)


@app.command()
def classify(
    model: Models,
    sae: options.SAEFolder,
    base: Base,
    corpus: options.Corpus,
    settings: options.Settings,
    activations: Exclusion,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Where latents.parquet is written.")],
    counts: Annotated[Path, typer.Option(help="Where classes.parquet is written.")],
    cached: Cached = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Tell to which model every latent of a crosscoder belongs, in one pass over text."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.diffing.classes import COUNTS, LATENTS, class_tables
    from saeflow.analyses.diffing.opening import open_crosscoder
    from saeflow.analyses.diffing.scaling import Pass
    from saeflow.saes.evaluation import rows_in_parts
    from saeflow.tables import write_table

    asked = options.parsed(Classes, settings)
    crosscoder, text, pairs = open_crosscoder(
        model, sae, base, _blocks(corpus, asked.blocks), activations, cached, dtype
    )
    groups = min(asked.groups, len(text.tokens))
    measured = {name: Pass(crosscoder, sides, groups) for name, sides in pairs.items()}
    beat = options.progress("read latents")
    for passed in text.passes(groups):
        for part in rows_in_parts(len(passed.x), crosscoder.d_sae, passed.x.device):
            for each in measured.values():
                each.add(passed.x[part], passed.group)
        beat(passed.first + len(passed.tokens), len(text.tokens))
    tables = [class_tables(each, name, asked, seed) for name, each in measured.items()]
    write_table(output, pl.concat(latents for latents, _ in tables), LATENTS)
    write_table(counts, pl.concat(counted for _, counted in tables), COUNTS)


@app.command()
def cause(
    model: Models,
    sae: options.SAEFolder,
    base: Base,
    latents: Latents,
    corpus: options.Corpus,
    settings: options.Settings,
    classes: ClassBounds,
    activations: Exclusion,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Where causal.parquet is written.")],
    prompts: Annotated[
        Path | None, typer.Option(help="The file of the prompts, where a file has them.")
    ] = None,
    cached: Cached = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure how much of what sets predictions apart goes through which latents."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.diffing.causal import CAUSAL, asked, measure_causes
    from saeflow.analyses.diffing.classes import LATENTS
    from saeflow.analyses.diffing.opening import open_crosscoder
    from saeflow.analyses.diffing.prompts import drawn_prompts, read_prompts
    from saeflow.tables import read_table, write_table

    own, resampled = options.parsed(Causal, settings), options.parsed(Classes, classes)
    crosscoder, text, pairs = open_crosscoder(
        model, sae, base, _blocks(corpus, own.blocks), activations, cached, dtype
    )
    table, on_prompts = read_table(latents, LATENTS), None
    if own.prompts:
        drawn = drawn_prompts(own.prompts, prompts, seed)
        first = next(source.lm for source in text.sources if source.name == base)
        on_prompts = read_prompts(first, own.prompts, drawn)
    measured = [
        measure_causes(
            crosscoder,
            sides,
            text,
            asked(table.filter(pl.col("model") == name), own),
            resampled,
            seed,
            options.progress(f"put latents of {name} in"),
            on_prompts,
        )
        for name, sides in pairs.items()
    ]
    write_table(output, pl.concat(measured), CAUSAL)


@app.command("contexts")
def show_contexts(
    model: Models,
    sae: options.SAEFolder,
    base: Base,
    latents: Latents,
    corpus: options.Corpus,
    settings: options.Settings,
    classes: ClassBounds,
    activations: Exclusion,
    output: Annotated[Path, typer.Option(help="Where contexts.parquet is written.")],
    decoders: Annotated[Path, typer.Option(help="Where decoders.parquet is written.")],
    scatter: Annotated[Path, typer.Option(help="Where scatter.parquet is written.")],
    seed: options.Seed,
    cached: Cached = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Find where the latents that contribute most to the difference fire, and what their
    directions do to the logits."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.diffing.classes import LATENTS
    from saeflow.analyses.diffing.contexts import (
        CONTEXTS,
        DECODERS,
        SCATTER,
        decoder_tokens,
        drawn_activations,
        find_contexts,
        shown_latents,
    )
    from saeflow.analyses.diffing.opening import open_crosscoder
    from saeflow.tables import read_table, write_table

    own, read = options.parsed(Shown, settings), options.parsed(Classes, classes)
    crosscoder, text, pairs = open_crosscoder(
        model, sae, base, _blocks(corpus, read.blocks), activations, cached, dtype
    )
    table, places, raised, points = read_table(latents, LATENTS), [], [], []
    for name, sides in pairs.items():
        chosen = shown_latents(table.filter(pl.col("model") == name), own)
        places.append(find_contexts(crosscoder, sides, text, chosen, own))
        raised.append(decoder_tokens(crosscoder, sides, text, chosen, own))
        points.append(drawn_activations(crosscoder, sides, text, chosen, own, seed))
    write_table(output, pl.concat(places), CONTEXTS)
    write_table(decoders, pl.concat(raised), DECODERS)
    write_table(scatter, pl.concat(points), SCATTER)


@app.command("match")
def match_saes(
    model: Annotated[
        list[Path], typer.Option(help="Folders of the base model and of the compared one.")
    ],
    sae: Annotated[
        list[Path], typer.Option(help="Folders of the SAE of the base and of the other's.")
    ],
    hook: options.HookName,
    corpus: options.Corpus,
    settings: options.Settings,
    classes: ClassBounds,
    activations: Exclusion,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Where latents.parquet is written.")],
    counts: Annotated[Path, typer.Option(help="Where classes.parquet is written.")],
    cached: Cached = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Match latents of two SAEs, one of each model, by how they fire together."""
    options.use_device(threads)
    from saeflow.analyses.diffing.classes import COUNTS
    from saeflow.analyses.diffing.matching import MATCHES, match_latents
    from saeflow.analyses.diffing.opening import hooks_by_model
    from saeflow.analyses.diffing.texts import Text, check_comparable
    from saeflow.saes.comparison import Seen
    from saeflow.tables import write_table

    for option, given in (("--model", model), ("--sae", sae)):
        if len(given) != 2:
            raise SaeflowError(f"{option}: {len(given)} folders; give the base's and the other's")
    read = options.parsed(Classes, classes)
    base, tuned = (Seen(folder.name, options.open_model(folder, dtype), hook) for folder in model)
    tokens = _blocks(corpus, read.blocks)
    check_comparable(base, tuned, tokens)
    exclusion = options.parsed(Activations, activations)
    text = Text([base, tuned], tokens, exclusion, hooks_by_model(cached))
    matched, counted = match_latents(
        [options.open_sae(folder).to(options.device()) for folder in sae],
        text,
        options.parsed(Matching, settings),
        read,
        seed,
        options.progress("match latents"),
    )
    write_table(output, matched, MATCHES)
    write_table(counts, counted, COUNTS)


def _blocks(corpus: Path, most: int) -> Any:
    """The first blocks of a split."""
    from saeflow.corpora.io import load_blocks

    return load_blocks(corpus).tokens[:most]
