"""``saeflow sae``: train, import, export and evaluate SAEs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from saeflow import config, options
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int

    from saeflow.saes.parallel import TensorParallel

app = typer.Typer(help="Train, import, export and evaluate SAEs.", no_args_is_help=True)


class TrainingJob(NamedTuple):
    """What `train` was asked for; the options' help says what each is."""

    manifests: list[Path]
    target: Path | None
    settings: dict[str, config.SAETraining]
    seed: int
    name: str
    checkpoint: Path
    output: Path
    threads: int
    initial: dict[str, Path]
    text: Text | None
    difference: bool


class Text(NamedTuple):
    """Words, and where the text is of which the blocks with such words are left out."""

    words: list[str]
    corpus: Path
    tokenizer: Path


@app.command()
def train(
    manifests: Annotated[
        list[Path],
        typer.Option(
            "--manifest",
            help="manifest.json of the activation cache; given several times, a crosscoder's, or "
            "a difference's.",
        ),
    ],
    settings: Annotated[
        str, typer.Option(help="By the names of the SAEs, how each is trained, as JSON.")
    ],
    seed: options.Seed,
    name: Annotated[
        str, typer.Option(help="The name of the SAE, or of the group; names the random draws.")
    ],
    checkpoint: options.Checkpoint,
    output: Annotated[Path, typer.Option(help="The folder in which every SAE has its own.")],
    target: Annotated[
        Path | None,
        typer.Option(help="Transcoder: manifest.json of the cache of what it computes."),
    ] = None,
    difference: Annotated[
        bool,
        typer.Option(
            "--difference", help="Of two caches: what the second holds less what the first does."
        ),
    ] = False,
    initial: Annotated[
        list[str] | None,
        typer.Option("--init", help="NAME=FOLDER: whose weights an SAE's training begins with."),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A word: blocks of text in which it occurs are not trained on."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="With --leave-out: the text of the activations.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="With --leave-out: folder of the model whose tokens it has.")
    ] = None,
    threads: options.Threads = 1,
    processes: Annotated[
        int, typer.Option(help="Over how many GPUs of this host the latents are shared.", min=1)
    ] = 1,
) -> None:
    """Train SAEs on the cached activations, in one pass; an interrupted run goes on where it
    stopped."""
    options.use_device(threads, processes)
    from saeflow.saes.parallel import spread

    by_name = options.parsed_by_name(config.SAETraining, settings)
    begun = {member: Path(path) for member, _, path in (i.partition("=") for i in initial or ())}
    text = None
    if leave_out:
        if not corpus or not tokenizer:
            raise SaeflowError(
                "--leave-out: words are sought in text; give --corpus and --tokenizer"
            )
        text = Text(leave_out, corpus, tokenizer)
    job = TrainingJob(
        manifests,
        target,
        by_name,
        seed,
        name,
        checkpoint,
        output,
        threads,
        begun,
        text,
        difference,
    )
    spread(processes, _train, job)


def _train(parallel: TensorParallel, job: TrainingJob) -> None:
    """What `train` does in each of its processes."""
    options.use_threads(job.threads)
    from saeflow.activations.alignment import in_step
    from saeflow.activations.parts import without_blocks
    from saeflow.saes.feeds import cache_feed
    from saeflow.saes.io import import_sae, save_trained
    from saeflow.saes.training import Progress, train_saes
    from saeflow.seeds import seed_for
    from saeflow.tables import write_table

    stores = in_step([options.open_store(manifest) for manifest in job.manifests])
    target = options.open_store(job.target) if job.target else None
    if job.text:
        left_out = _blocks_with(job.text)
        stores = [without_blocks(store, left_out) for store in stores]
        target = without_blocks(target, left_out) if target else None
    feed = cache_feed(
        stores,
        target,
        next(iter(job.settings.values())).batch_size,
        seed_for(job.seed, "sae", job.name, "order"),
        job.difference,
    )
    beat = options.progress("train SAE, tokens")

    def report(at: Progress) -> None:
        beat(at.tokens, at.of, f"L0 {at.l0:.1f}, explained variance {at.explained_variance:.3f}")

    trained = train_saes(
        feed,
        list(job.settings.values()),
        seed_for(job.seed, "sae", job.name),
        job.checkpoint,
        report if parallel.rank == 0 else None,
        device=parallel.device(options.device()),
        parallel=parallel,
        initial=[import_sae(job.initial[m]) if m in job.initial else None for m in job.settings],
    )
    if parallel.rank == 0:
        for member, (sae, curve) in zip(job.settings, trained, strict=True):
            save_trained(job.output / member, sae, feed)
            write_table(job.output / member / "training.parquet", curve)
        job.checkpoint.unlink(missing_ok=True)


def _blocks_with(text: Text) -> Int[np.ndarray, " blocks"]:
    """The numbers of the blocks in which the words occur."""
    from saeflow.corpora.io import load_blocks
    from saeflow.corpora.words import occurrences
    from saeflow.models.language_model import load_tokenizer

    decode = load_tokenizer(text.tokenizer).decode
    return occurrences(text.words, load_blocks(text.corpus), decode).nonzero()[0]


@app.command("import")
def import_(
    path: Annotated[Path, typer.Option(help="The folder with the SAE's files, or its one file.")],
    output: options.Output,
    named: options.SAEFormat = "auto",
    hook: options.ReadHook = None,
    target: options.WrittenHook = None,
    sources: Annotated[
        list[str] | None,
        typer.Option("--source", help="Crosscoder: every source in order, as model:hook."),
    ] = None,
    centred: options.Centred = False,
    k: options.GivenK = None,
    scale: options.GivenScale = None,
    threshold: options.GivenThreshold = None,
    apply_b_dec_to_input: options.GivenBias = None,
    normalize_activations: options.GivenNormalisation = None,
) -> None:
    """Bring an SAE from elsewhere into the study: checked, its normalisation folded, in the layout
    of SAELens 6."""
    from saeflow.config.sae_files import Given
    from saeflow.saes import io
    from saeflow.saes.placing import with_sources

    if sources:
        io.save_crosscoder(output, with_sources(io.load_crosscoder(path), sources))
    else:
        given = Given(k, scale, threshold, apply_b_dec_to_input, normalize_activations)
        said = io.Elsewhere(named, hook, target, centred, given)
        io.save_sae(output, io.sae_from_elsewhere(path, said))


@app.command()
def export(
    sae: options.SAEFolder,
    named: Annotated[
        str,
        typer.Option(
            "--format",
            help="The format to write: saelens, dictionary_learning, sparsify or gemma_scope.",
        ),
    ],
    output: options.Output,
) -> None:
    """Write an SAE of a study for another library."""
    from saeflow.saes.io import export_sae, load_sae

    export_sae(output, load_sae(sae), named)


@app.command()
def evaluate(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    corpus: options.Corpus,
    hook: options.HookName,
    metrics: options.Metrics,
    recovery: Annotated[
        Path,
        typer.Option(help="Where the table of planted features is written; empty without labels."),
    ],
    settings: options.Settings = "{}",
    cached: Annotated[
        list[str] | None,
        typer.Option(help="Hook of the study's caches, whose norms tell what they leave out."),
    ] = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure sparsity, reconstruction, the loss it costs, and what it finds of planted features.

    Settings are those of the section activations: what the caches leave out is left out here.
    """
    options.use_device(threads)
    from saeflow.artifacts import write_sealed_json
    from saeflow.corpora.io import load_blocks
    from saeflow.models.io import model_names
    from saeflow.provenance import provenance
    from saeflow.saes.evaluation import evaluate_sae
    from saeflow.saes.placing import warn_of_training
    from saeflow.saes.recovery import planted_recovery, recovery_metrics
    from saeflow.tables import write_table

    lm, weights = options.open_model(model, dtype), options.open_sae(sae)
    blocks = load_blocks(corpus)
    warn_of_training(weights, model_names(model))
    exclusion = options.parsed(config.Activations, settings)
    planted = planted_recovery(lm, weights, hook, blocks, settings=exclusion, cached=cached or ())
    write_table(recovery, planted)
    measured = evaluate_sae(lm, weights, hook, blocks, settings=exclusion, cached=cached or ())
    measured |= recovery_metrics(planted)
    write_sealed_json(metrics, measured | {"provenance": provenance()})


@app.command()
def summarise(
    metrics: Annotated[
        list[Path], typer.Argument(help="metrics.json of every SAE, in its folder.")
    ],
    saes: Annotated[str, typer.Option(help="By the names of the SAEs, what each is, as JSON.")],
    output: Annotated[Path, typer.Option(help="summary.parquet; a .csv is written beside it.")],
) -> None:
    """Gather what was measured of all SAEs in one table, those that differ in the seed alone as one
    row."""
    options.set_pools(1)
    from saeflow.artifacts import read_json
    from saeflow.saes.summary import summarise_saes
    from saeflow.tables import write_table

    described = options.parsed_facts(saes, "--saes")
    table = summarise_saes(described, {path.parent.name: read_json(path) for path in metrics})
    for path in (output, output.with_suffix(".csv")):
        write_table(path, table)


@app.command("evaluate-crosscoder")
def evaluate_crosscoder(
    models: Annotated[
        list[Path], typer.Option("--model", help="Folder of every model that it reads.")
    ],
    sae: options.SAEFolder,
    corpus: options.Corpus,
    metrics: options.Metrics,
    sources: Annotated[
        Path | None,
        typer.Option(help="Crosscoder: where the table of latents and sources is written."),
    ] = None,
    settings: options.Settings = "{}",
    cached: Annotated[
        list[str] | None,
        typer.Option(help="Hook of the study's caches, as model:hook, whose norms count."),
    ] = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure a crosscoder's sparsity, its reconstruction of every source, and which latents belong
    to which; or of an SAE of a difference, its reconstruction of that.

    Settings are those of the section activations: what the caches leave out is left out here.
    """
    options.use_device(threads)
    from saeflow.artifacts import write_sealed_json
    from saeflow.corpora.io import load_blocks
    from saeflow.provenance import provenance
    from saeflow.saes import comparison
    from saeflow.saes.io import load_of_models
    from saeflow.saes.placing import sources_of
    from saeflow.tables import write_table

    crosscoder = load_of_models(sae)
    opened = {folder.name: options.open_model(folder, dtype) for folder in models}
    seen = [
        comparison.Seen(model, opened[model], hook)
        for model, hook in sources_of(crosscoder, opened)
    ]
    hooks: dict[str, list[str]] = {}
    for model, _, hook in (place.rpartition(":") for place in cached or ()):
        hooks.setdefault(model, []).append(hook)
    exclusion, blocks = options.parsed(config.Activations, settings), load_blocks(corpus)
    if crosscoder.of_difference:
        measured = comparison.evaluate_difference(crosscoder, seen, blocks, exclusion, hooks)
    else:
        measured, table = comparison.evaluate_crosscoder(
            crosscoder, seen, blocks, settings=exclusion, cached=hooks
        )
        if sources:
            write_table(sources, table)
    write_sealed_json(metrics, measured | {"provenance": provenance()})
