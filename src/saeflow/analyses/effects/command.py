"""``saeflow effects``: what vectors do to latents, and the linear map that predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saeflow import options
from saeflow.analyses.effects.counts import block_ids
from saeflow.analyses.effects.settings import Approximator, Measurement, Vectors

if TYPE_CHECKING:
    from saeflow.analyses.effects.measure import EffectBlock, Experiment

app = typer.Typer(
    help="Measure the effects of steering vectors, and approximate them.", no_args_is_help=True
)
VECTORS_PER_PART = (
    32  # a killed job loses the vectors of one part at most; more where one decode batch holds more
)


@app.command()
def baseline(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    corpus: options.Corpus,
    manifest: options.Manifest,
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure the mean activations of the unsteered model's own text."""
    options.use_device(threads)
    from saeflow.analyses.effects.io import save_baseline
    from saeflow.analyses.effects.measure import measure_baseline, measure_in_batches_that_fit

    experiment = open_experiment(model, sae, corpus, manifest, hook, settings, seed, dtype)
    beat = options.progress("measure baseline, rollouts")
    unsteered, experiment = measure_in_batches_that_fit(
        experiment, lambda fitting: measure_baseline(fitting, beat)
    )
    save_baseline(output, unsteered, _metadata(experiment))


@app.command()
def measure(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    corpus: options.Corpus,
    manifest: options.Manifest,
    baseline: options.Baseline,
    hook: options.HookName,
    settings: options.Settings,
    vectors: Annotated[
        str, typer.Option(help="Which vectors: the section `effects.vectors`, as JSON.")
    ],
    seed: options.Seed,
    source: Annotated[
        Path,
        typer.Option(
            help="Where the vectors come from: sae_weights.safetensors of an SAE, a safetensors "
            "file, or approximator.safetensors, as the settings say."
        ),
    ],
    block: Annotated[int, typer.Option(help="Which block of vectors.")],
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
    decode: options.Decode = "eager",
) -> None:
    """Measure the effects of one block of vectors, from the last whole part on."""
    options.use_device(threads)
    from saeflow.analyses.effects.candidates import candidate_vectors
    from saeflow.analyses.effects.io import load_baseline, measure_in_parts, write_block
    from saeflow.analyses.effects.measure import measure_block, measure_in_batches_that_fit
    from saeflow.analyses.effects.sources import load_rows

    unsteered = load_baseline(baseline)
    experiment = open_experiment(
        model, sae, corpus, manifest, hook, settings, seed, dtype, unsteered.batch_rows
    )
    experiment = replace(experiment, recorded=decode == "recorded")
    chosen = options.parsed(Vectors, vectors)
    rows = load_rows(chosen, source, hook, experiment.subject.lm.d_model)
    ids = block_ids(chosen, len(rows), block)
    beat = options.progress(f"measure effects of block {block}, scales and means")

    def measured(part_ids: Sequence[int]) -> EffectBlock:
        nonlocal experiment  # one that did not fit is not tried again
        drawn, before = candidate_vectors(chosen, rows, part_ids, seed), 2 * (part_ids[0] - ids[0])
        effects, experiment = measure_in_batches_that_fit(
            experiment,
            lambda fitting: measure_block(
                fitting,
                drawn,
                part_ids,
                unsteered,
                lambda done, _: beat(before + done, 2 * len(ids)),
            ),
        )
        return effects

    settled = experiment.settings
    metadata = _metadata(experiment) | {"vectors": chosen.model_dump(mode="json")}
    part = max(VECTORS_PER_PART, experiment.plan(settled.samples).slots)
    parts = measure_in_parts(output, ids, part, measured, metadata)
    write_block(output, parts, block, metadata | _metadata(experiment))


@app.command()
def merge(
    blocks: Annotated[list[Path], typer.Argument(help="Every block.")],
    output: options.Output,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Of the effects in the file.")
    ] = "float32",
) -> None:
    """Merge all blocks into effects.h5, one in memory at a time."""
    options.set_pools(1)
    from saeflow.analyses.effects.io import merge_blocks

    merge_blocks(blocks, output, dtype, options.progress("merge effects, blocks"))


@app.command()
def fit(
    effects: Annotated[Path, typer.Option(help="effects.h5")],
    sae: options.SAEFolder,
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the approximator.")],
    threads: options.Threads = 1,
) -> None:
    """Fit the approximator and measure it on vectors it has not seen."""
    options.use_threads(threads)
    from saeflow.analyses.effects.approximator import fit as fitted
    from saeflow.analyses.effects.io import open_effects, save_fit

    chosen = options.parsed(Approximator, settings)
    with open_effects(effects) as table:
        W_dec = options.open_sae(sae).W_dec
        table.check_fits(W_dec.shape[1], W_dec.shape[0])
        result = fitted(
            table.vectors, table.effects, chosen, W_dec, seed, table.usable, table.standard_error
        )
        hook = table.hook
    metadata = {"hook": hook, "settings": chosen.model_dump(), "seed": seed}
    save_fit(output, result, metadata)


@app.command()
def assess(
    approximator: options.Approximator,
    effects: Annotated[Path, typer.Option(help="effects.h5")],
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the metrics.")],
    threads: options.Threads = 1,
) -> None:
    """Measure a published approximator on the last effects, which its authors held back."""
    options.use_threads(threads)
    from saeflow.analyses.effects.approximator import assess as assessed
    from saeflow.analyses.effects.io import open_effects, read_approximation, save_score

    approximation, _ = read_approximation(approximator)
    with open_effects(effects) as table:
        table.check_fits(*approximation.M.shape)
        scored = assessed(
            approximation, table.vectors, table.effects, seed, table.usable, table.standard_error
        )
    save_score(output, scored)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A published file: effects_2b.pt.")],
    hook: options.HookName,
    output: options.Output,
) -> None:
    """Write published effects (features and effects, saved by torch) as effects.h5."""
    options.set_pools(1)
    from saeflow.analyses.effects.published import import_effects

    metadata = {"hook": hook}
    import_effects(source, output, metadata, options.progress("import effects, vectors"))


@app.command()
def export(
    effects: Annotated[Path, typer.Argument(help="effects.h5")], output: options.Output
) -> None:
    """Write effects.h5 as published effects are: features of the norm `scale`, and effects."""
    options.set_pools(1)
    from saeflow.analyses.effects.io import open_effects
    from saeflow.analyses.effects.published import export_effects

    with open_effects(effects) as table:
        export_effects(table, output, options.progress("export effects, vectors"))


@app.command("import-approximator")
def import_approximator(
    source: Annotated[Path, typer.Argument(help="A published file: adapter_2b_layer_12.pt.")],
    sae: options.SAEFolder,
    hook: options.HookName,
    output: Annotated[Path, typer.Option(help="Folder of the approximator.")],
    rotation: Annotated[
        Path | None,
        typer.Option(help="A published rotation, R_dec_2b.pt; by default it is computed anew."),
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Write a published approximator (W and b, saved by torch) as approximator.safetensors."""
    options.use_threads(threads)
    from saeflow.analyses.effects.io import save_approximation
    from saeflow.analyses.effects.published import read_adapter, read_rotation

    W_dec = options.open_sae(sae).W_dec.cpu()
    approximation = read_adapter(source, W_dec)
    if rotation:
        approximation = approximation._replace(rotation=read_rotation(rotation, W_dec.shape[1]))
    save_approximation(output, approximation, {"hook": hook, "source": source.name})


@app.command("export-approximator")
def export_approximator(
    approximator: Annotated[Path, typer.Argument(help="approximator.safetensors")],
    output: options.Output,
) -> None:
    """Write approximator.safetensors as published ones are: W and b, saved by torch."""
    options.set_pools(1)
    from saeflow.analyses.effects.io import read_approximation
    from saeflow.analyses.effects.published import write_adapter

    write_adapter(read_approximation(approximator)[0], output)


def open_experiment(
    model: Path,
    sae: Path,
    corpus: Path,
    manifest: Path,
    hook: str,
    settings: str,
    seed: int,
    dtype: str,
    batch_rows: int | None = None,
) -> Experiment:
    """The model, the SAE and the text that effects are measured with, on this process's device."""
    from saeflow.analyses.effects.measure import prepare
    from saeflow.corpora.io import load_blocks
    from saeflow.saes.subject import Subject

    return prepare(
        Subject(options.open_model(model, dtype), options.open_sae(sae), hook, seed),
        options.parsed(Measurement, settings),
        load_blocks(corpus).tokens,
        options.open_store(manifest).mean_norm,
        batch_rows,
    )


def _metadata(experiment: Experiment) -> dict[str, Any]:
    return {
        "hook": experiment.subject.hook,
        "settings": experiment.settings.model_dump(exclude_unset=True),
        "seed": experiment.subject.seed,
        "mean_norm": experiment.mean_norm,
        "batch_rows": experiment.batch_rows,
    }
