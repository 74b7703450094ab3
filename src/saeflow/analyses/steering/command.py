"""``saeflow steering`` and ``saeflow steer``: latents, vectors, completions, scores, tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.analyses.steering.capability_command import capability
from saeflow.analyses.steering.exports.command import export
from saeflow.analyses.steering.judging_command import (
    CompletionFiles,
    pairs,
    read_completions,
    score,
)
from saeflow.analyses.steering.prompting_command import complete_in_words
from saeflow.analyses.steering.search.command import choose, search
from saeflow.analyses.steering.settings import Completions, SteeringVectors, Summary, Targets

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(
    help="Build steering vectors and complete prompts with them.", no_args_is_help=True
)
for command in (score, pairs, export, capability, search, choose):
    app.command()(command)
app.command("complete-in-words")(complete_in_words)

Contrast = Annotated[
    Path, typer.Option(help="contrast.safetensors: activations of the goal's examples.")
]
Vectors = Annotated[
    list[Path],
    typer.Argument(
        help="vector.safetensors of the goal's methods, each in a folder called as its method."
    ),
]
GoalFolder = Annotated[
    Path, typer.Option(help="Folder of the goal, in which every method has or gets one.")
]


@app.command()
def latents(
    goals: Annotated[
        list[Path],
        typer.Argument(help="YAML files of all goals of the study, each called as its goal."),
    ],
    model: options.ModelFolder,
    sae: options.SAEFolder,
    sae_name: Annotated[
        str, typer.Option(help="The SAE's name, under which goals may list latents.")
    ],
    manifest: options.Manifest,
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[
        Path,
        typer.Option(help="Folder in which every goal has one, and which gets targets.parquet."),
    ],
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Choose the target latents of all goals, and keep the activations of their examples."""
    options.use_device(threads)
    import torch

    from saeflow.analyses.steering.choice import choose_latents
    from saeflow.analyses.steering.examples import bos_latents, read_examples
    from saeflow.analyses.steering.io import Contrast as Activations
    from saeflow.analyses.steering.io import save_choices, save_contrast
    from saeflow.analyses.steering.latents import DENSITY_TOKENS, firing_density
    from saeflow.analyses.steering.specificity import GoalTexts
    from saeflow.saes.subject import Subject
    from saeflow.seeds import numpy_generator

    chosen = options.parsed(Targets, settings)
    subject = Subject(options.open_model(model, dtype), options.open_sae(sae), hook, seed)
    store = options.open_store(manifest)
    density = firing_density(
        subject.sae, (store.read(piece) for piece in store.pieces()), DENSITY_TOKENS
    )
    texts, listed = {}, {}
    for file in goals:
        goal = config.read_goal(file)
        on = read_examples(subject, goal.positive, against=goal.negative)
        off = read_examples(subject, goal.negative)
        texts[file.stem] = GoalTexts.of(on, off)
        if sae_name in goal.latents:
            listed[file.stem] = goal.latents[sae_name]
        difference = on.latents.mean(0) - off.latents.mean(0)
        from_bos = bos_latents(subject, torch.maximum(on.peak, off.peak))
        contrast = Activations(on.mean, on.last, off.mean, off.last, difference, from_bos)
        save_contrast(output / file.stem / "contrast.safetensors", contrast)
    generator = numpy_generator(seed, "steering", "latents")
    choices = choose_latents(
        texts, density.numpy(), chosen.latents, generator, listed, chosen.shared
    )
    save_choices(output, choices)


@app.command()
def vectors(
    sae: options.SAEFolder,
    latents: Annotated[Path, typer.Option(help="latents.json")],
    contrast: Contrast,
    manifest: options.Manifest,
    goal: Annotated[str, typer.Option(help="The goal's name.")],
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    output: GoalFolder,
    approximator: Annotated[
        Path | None,
        typer.Option(help="approximator.safetensors, for methods that are built from it."),
    ] = None,
    recovery: Annotated[
        Path | None, typer.Option(help="recovery.parquet: which latents detect planted topics.")
    ] = None,
    goal_file: Annotated[
        Path | None, typer.Option(help="The goal's YAML file, which names its topic.")
    ] = None,
    parts: options.PartsFolder = None,
    threads: options.Threads = 1,
) -> None:
    """Build the goal's vector by every method."""
    options.use_threads(threads)
    from saeflow.analyses.steering.building import VectorFiles, build_vectors

    files = VectorFiles(sae, latents, contrast, manifest, approximator, recovery, goal_file)
    chosen = options.parsed(SteeringVectors, settings)
    build_vectors(files, chosen, hook, goal, seed, output, parts)


@app.command()
def complete(
    vectors: Vectors,
    model: options.ModelFolder,
    manifest: options.Manifest,
    settings: options.Settings,
    seed: options.Seed,
    output: GoalFolder,
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
    decode: options.Decode = "eager",
) -> None:
    """Complete the prompts with each of a goal's vectors at every scale."""
    options.use_device(threads)
    from saeflow.analyses.steering.completions import absolute_scales
    from saeflow.analyses.steering.completions import complete as completed
    from saeflow.analyses.steering.io import load_vectors
    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.parts import Parts
    from saeflow.tables import write_table

    chosen = options.parsed(Completions, settings)
    lm, mean_norm = options.open_model(model, dtype), options.open_store(manifest).mean_norm
    code = ("analyses/steering/completions.py",)
    kept = Parts(parts, "completions", code, model, chosen, seed, dtype, decode)
    for file, loaded in zip(vectors, load_vectors(vectors), strict=True):
        scales = absolute_scales(chosen, mean_norm, loaded.norm)
        make = partial(
            completed,
            lm,
            loaded.hook,
            loaded.of_width(lm.d_model),
            scales,
            chosen,
            seed,
            goal=loaded.goal,
            method=loaded.method,
            progress=options.progress(f"complete prompts by {loaded.method}, completions"),
            recorded=decode == "recorded",
        )
        made_from = [loaded.vector, loaded.hook, loaded.goal, loaded.method, scales]
        method = file.absolute().parent.name
        table = kept.table(method, COMPLETIONS_SCHEMA, made_from, make)
        write_table(output / method / "completions.parquet", table, COMPLETIONS_SCHEMA)


@app.command("side-effects")
def side_effects(
    vectors: Vectors,
    model: options.ModelFolder,
    sae: options.SAEFolder,
    corpus: options.Corpus,
    manifest: options.Manifest,
    baseline: options.Baseline,
    approximator: options.Approximator,
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure what a goal's vectors do to every latent, beside what the approximator predicts."""
    options.use_device(threads)
    import torch

    from saeflow.analyses.effects.command import open_experiment
    from saeflow.analyses.effects.io import load_baseline, read_approximation
    from saeflow.analyses.effects.measure import (
        measure_block,
        measure_in_batches_that_fit,
        unit_vectors,
    )
    from saeflow.analyses.steering.io import load_vectors
    from saeflow.analyses.steering.side_effects import MEASURED_SCHEMA, measured_effects
    from saeflow.analyses.steering.side_effects import side_effects as table_of
    from saeflow.parts import Parts
    from saeflow.tables import write_table

    unsteered = load_baseline(baseline)
    experiment = open_experiment(
        model=model,
        sae=sae,
        corpus=corpus,
        manifest=manifest,
        hook=hook,
        settings=settings,
        seed=seed,
        dtype=dtype,
        batch_rows=unsteered.batch_rows,
    )
    width = experiment.subject.lm.d_model
    loaded = load_vectors(vectors)
    stacked = unit_vectors(torch.stack([each.of_width(width) for each in loaded]), width)
    code = ("analyses/effects", "analyses/steering/side_effects.py")
    made_with = model, sae, corpus, baseline, experiment.settings, experiment.mean_norm
    kept = Parts(parts, "side_effects", code, *made_with, hook, seed, dtype)

    def measure(places: Sequence[int]) -> list[pl.DataFrame]:
        """Of the vectors at some places. A vector's noise follows from its place alone."""
        block, _ = measure_in_batches_that_fit(
            experiment,
            lambda fitting: measure_block(fitting, stacked[places], places, unsteered),
        )
        return measured_effects(block)

    made_from = {each.method: [stacked[place], place] for place, each in enumerate(loaded)}
    measured = dict(zip(made_from, kept.tables(made_from, MEASURED_SCHEMA, measure), strict=True))
    write_table(output, table_of(measured, stacked, read_approximation(approximator)[0]))


@app.command()
def divergence(
    completions: CompletionFiles,
    vector: Annotated[
        list[Path],
        typer.Option(help="vector.safetensors of every completions.parquet, in their order."),
    ],
    model: options.ModelFolder,
    output: options.Output,
    parts: options.PartsFolder = None,
    in_words: Annotated[
        list[Path] | None, typer.Option(help="completions.parquet of methods in words.")
    ] = None,
    prompts: Annotated[
        list[Path] | None, typer.Option(help="prompts.parquet of each of these.")
    ] = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure how far steering moves the model on each completion."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.steering.divergence import divergences, divergences_in_words
    from saeflow.analyses.steering.io import read_steered
    from saeflow.analyses.steering.schemas import PROMPTS_SCHEMA
    from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
    from saeflow.parts import Parts
    from saeflow.tables import read_table, write_table

    lm, measured = options.open_model(model, dtype), []
    kept = Parts(parts, "divergence", ("analyses/steering/divergence.py",), model, dtype)
    for path, file in zip(completions, vector, strict=True):
        written, steered = read_steered(path, file)
        make = partial(
            divergences,
            lm,
            steered.hook,
            steered.of_width(lm.d_model),
            written,
            progress=options.progress(f"{steered.method}, completions"),
        )
        made_from = [steered.vector, steered.hook, written]
        method = file.absolute().parent.name
        measured.append(kept.table(method, DIVERGENCE_SCHEMA, made_from, make))
    for path, file in zip(in_words or (), prompts or (), strict=True):
        written, given = read_completions(path), read_table(file, PROMPTS_SCHEMA)
        make = partial(divergences_in_words, lm, written, given)
        method = file.absolute().parent.name
        measured.append(kept.table(method, DIVERGENCE_SCHEMA, [written, given], make))
    write_table(output, pl.concat(measured), DIVERGENCE_SCHEMA)


@app.command()
def summarise(
    completions: CompletionFiles,
    scores: Annotated[list[Path], typer.Option(help="scores.parquet of every goal and method.")],
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    divergence: Annotated[
        list[Path] | None, typer.Option(help="divergence.parquet of every goal.")
    ] = None,
    capability: Annotated[
        list[Path] | None, typer.Option(help="capability.parquet of every goal.")
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Summarise scores, divergences and capabilities into tables with intervals."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.analyses.steering.schemas import CAPABILITY_SCHEMA
    from saeflow.analyses.steering.summary import summarise as summarised
    from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA, write_summaries
    from saeflow.judging.io import read_scores
    from saeflow.judging.scores import require_scores
    from saeflow.tables import read_table

    judged = pl.concat([read_scores(path) for path in scores])
    require_scores(judged)
    moved = [read_table(file, DIVERGENCE_SCHEMA) for file in divergence or ()]
    able = [read_table(file, CAPABILITY_SCHEMA) for file in capability or ()]
    summaries = summarised(
        pl.concat([read_completions(path) for path in completions]),
        judged,
        options.parsed(Summary, settings),
        seed,
        pl.concat(moved) if moved else None,
        pl.concat(able) if able else None,
    )
    write_summaries(output, summaries)
