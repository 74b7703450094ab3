"""``saeflow steering`` and ``saeflow steer``: latents, vectors, completions, scores, tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.analyses.steering.capability_command import capability
from saeflow.analyses.steering.exports.command import export
from saeflow.analyses.steering.methods import PLANTED, method_of
from saeflow.analyses.steering.settings import Completions, SteeringVectors, Summary, Targets
from saeflow.errors import SaeflowError

DENSITY_TOKENS = 65_536  # of the cache, on which it is counted how often latents fire

if TYPE_CHECKING:
    import polars as pl

    from saeflow.endpoint.service import Service


app = typer.Typer(
    help="Build steering vectors and complete prompts with them.", no_args_is_help=True
)
app.command()(export)
app.command()(capability)

Contrast = Annotated[
    Path, typer.Option(help="contrast.safetensors: activations of the goal's examples.")
]
Calls = Annotated[str, typer.Option("--calls", help="The section 'calls' of the config, as JSON.")]
LedgerFile = Annotated[
    Path, typer.Option(help="ledger.sqlite of the study, for the judge 'openai'.")
]
CompletionFiles = Annotated[
    list[Path], typer.Argument(help="completions.parquet of every goal and method.")
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
    from saeflow.analyses.steering.latents import firing_density
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
    output: Annotated[Path, typer.Option(help="Folder of the goal.")],
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
    threads: options.Threads = 1,
) -> None:
    """Build the goal's vector by every method."""
    options.use_threads(threads)
    from saeflow.analyses.effects.io import read_approximation
    from saeflow.analyses.steering.io import SteeringVector, load_choice, load_contrast, save_vector
    from saeflow.analyses.steering.latents import best_detector, differing_latents, firing_density
    from saeflow.analyses.steering.vectors import VectorInputs, build_vector
    from saeflow.tables import read_table

    chosen, weights = options.parsed(SteeringVectors, settings), options.open_sae(sae)
    examples, targets = load_contrast(contrast), load_choice(latents).weights
    differing: dict[int, float] = {}
    if any(method_of(method).needs_differing for method in chosen.methods):
        store = options.open_store(manifest)
        density = firing_density(
            weights, (store.read(piece) for piece in store.pieces()), DENSITY_TOKENS
        )
        differing = differing_latents(examples.difference, examples.from_bos, density, chosen.fgaa)
    planted: dict[int, float] = {}
    if recovery and goal_file:
        planted = {best_detector(read_table(recovery), str(config.read_goal(goal_file).topic)): 1.0}
    inputs = VectorInputs(
        W_dec=weights.W_dec.cpu(),
        approximation=read_approximation(approximator)[0] if approximator else None,
        targets=targets,
        differing=differing,
        planted=planted,
        goal=goal,
        seed=seed,
        positive=getattr(examples, f"positive_{chosen.caa_positions}"),
        negative=getattr(examples, f"negative_{chosen.caa_positions}"),
        bias_weight=chosen.bias_weight,
        pinverse_form=chosen.pinverse_form,
    )
    for method in chosen.methods:
        vector, norm = build_vector(method, inputs)
        own = differing if method_of(method).needs_differing else targets
        aimed = planted if method.endswith(PLANTED) else own
        built = SteeringVector.towards(
            aimed, vector, hook=hook, goal=goal, method=method, norm=norm
        )
        save_vector(output / method / "vector.safetensors", built)


@app.command()
def complete(
    model: options.ModelFolder,
    vector: Annotated[Path, typer.Option(help="vector.safetensors")],
    manifest: options.Manifest,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Complete the prompts with a vector at every scale."""
    options.use_device(threads)
    from saeflow.analyses.steering.completions import absolute_scales
    from saeflow.analyses.steering.completions import complete as completed
    from saeflow.analyses.steering.io import load_vector
    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import write_table

    chosen, loaded = options.parsed(Completions, settings), load_vector(vector)
    lm = options.open_model(model, dtype)
    table = completed(
        lm,
        loaded.hook,
        loaded.of_width(lm.d_model),
        absolute_scales(chosen, options.open_store(manifest).mean_norm, loaded.norm),
        chosen,
        seed,
        goal=loaded.goal,
        method=loaded.method,
        progress=options.progress("complete prompts, completions"),
    )
    write_table(output, table, COMPLETIONS_SCHEMA)


def steer(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    vector: Annotated[Path, typer.Option(help="vector.safetensors of a study.")],
    scale: Annotated[
        float, typer.Option(help="How much of the vector is added; below 0 it steers away.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model; default is the model of the vector's study."),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many completions.", min=1)] = 4,
    new_tokens: Annotated[int, typer.Option(help="Tokens per completion.", min=1)] = 40,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 1.0,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Take the prompt as a user's message to a chat model; show its answer alone.",
        ),
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Try a vector at the terminal: unsteered and steered completions of a prompt, with the same
    noise."""
    options.use_device(2)
    from saeflow.analyses.steering.completions import complete as completed
    from saeflow.analyses.steering.io import load_vector

    loaded = load_vector(vector)
    settings = Completions(
        prompts=[[config.Message(role="user", content=prompt)] if chat else prompt],
        samples=max(samples, 4),
        new_tokens=new_tokens,
        sampling=config.Sampling(temperature=temperature),
    )
    lm = options.open_model(model or _study_model(vector))
    table = completed(
        lm,
        loaded.hook,
        loaded.of_width(lm.d_model),
        [0.0, scale],
        settings,
        seed,
        goal=loaded.goal,
        method=loaded.method,
    )
    steered = f"{loaded.goal} by {loaded.method}, scale {scale:g}"
    for index, title in enumerate(("unsteered", steered)):
        typer.secho(title, bold=True)
        texts = table.filter(scale_index=index)["continuation" if chat else "text"]
        for text in texts.head(samples):
            options.say(f"  {text}")


def _study_model(vector: Path) -> Path:
    """The model's folder in the study that a ``steering/<goal>/<method>/vector.safetensors`` lies
    in."""
    root = vector.resolve().parents[3] if len(vector.resolve().parents) > 3 else Path()
    record = root / "config.yaml"
    if not record.is_file():
        raise SaeflowError(
            f"steer: {vector} lies in no study; name the model's folder with --model"
        )
    from saeflow.analyses.reading import read_study

    return root / "models" / read_study(record).model.name


@app.command("side-effects")
def side_effects(
    vectors: Annotated[list[Path], typer.Argument(help="The goal's vectors, one per method.")],
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
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure what a goal's vectors do to every latent, beside what the approximator predicts."""
    options.use_device(threads)
    import torch

    from saeflow.analyses.effects.command import open_experiment
    from saeflow.analyses.effects.io import load_baseline, read_approximation
    from saeflow.analyses.effects.measure import measure_block, measure_in_batches_that_fit
    from saeflow.analyses.steering.io import load_vector
    from saeflow.analyses.steering.side_effects import side_effects as table_of
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
    loaded = [load_vector(path) for path in vectors]
    stacked = torch.stack(
        [steering_vector.of_width(experiment.subject.lm.d_model) for steering_vector in loaded]
    )
    block, _ = measure_in_batches_that_fit(
        experiment, lambda fitting: measure_block(fitting, stacked, range(len(loaded)), unsteered)
    )
    methods = [steering_vector.method for steering_vector in loaded]
    write_table(output, table_of(methods, block, read_approximation(approximator)[0]))


@app.command()
def score(
    completions: Annotated[Path, typer.Option(help="completions.parquet")],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the unsteered model, for judges that ask for its loss."),
    ] = None,
    ledger: LedgerFile | None = None,
    calls: Calls = "{}",
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have one goal's completions judged for behaviour and coherence."""
    options.set_pools(threads)
    from saeflow.judging.io import write_scores
    from saeflow.judging.scores import score_completions

    judge = options.parsed(config.Judge, settings)
    losses = None
    if model:
        options.use_device(threads)
        from saeflow.judging.losses import model_losses

        losses = model_losses(
            options.open_model(model, dtype), progress=options.progress("judge, completions")
        )
    service = _service(judge, calls, ledger) if judge.traits.is_hosted else None
    scored = score_completions(
        read_completions(completions), config.read_goal(goal), judge, seed, losses, service=service
    )
    write_scores(output, scored)


def read_completions(completions: Path) -> pl.DataFrame:
    """Read a table of completions; raises as `saeflow.tables.read_table` does."""
    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import read_table

    return read_table(completions, COMPLETIONS_SCHEMA)


def _service(judge: config.Judge, calls: str, ledger: Path | None) -> Service:
    """The judging model of a study, with someone at the terminal or the log to tell."""
    from saeflow.endpoint.ledger import Ledger
    from saeflow.endpoint.service import Estimate, Service

    if ledger is None:
        raise SaeflowError("judge 'openai': answers are kept in a ledger; name one with --ledger")

    def announce(estimate: Estimate) -> None:
        options.say(f"judge '{judge.model}': {estimate}", err=True)

    limits = options.parsed_in_silence(config.Calls, calls)
    return Service(judge, limits, Ledger(ledger), announce, options.progress("judge, questions"))


@app.command()
def pairs(
    completions: CompletionFiles,
    best: Annotated[
        Path, typer.Option(help="best.parquet: the scale that each method is compared at.")
    ],
    goals: Annotated[Path, typer.Option(help="Folder of the goals' YAML files.")],
    settings: options.Settings,
    count: Annotated[int, typer.Option(help="Samples per goal and pair of methods.")],
    summary: Annotated[
        str, typer.Option(help="The section `steering.summary` of the config, as JSON.")
    ],
    seed: options.Seed,
    ledger: LedgerFile,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    calls: Calls = "{}",
    threads: options.Threads = 1,
) -> None:
    """Have methods compared side by side on held-out samples, in both orders, and rate them."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.analyses.steering.preferences import judge_pairs, pair_up
    from saeflow.analyses.steering.ratings import rate
    from saeflow.analyses.steering.summary_io import write_ratings
    from saeflow.tables import read_table

    judge, halves = options.parsed(config.Judge, settings), options.parsed(Summary, summary)
    table = pl.concat([read_completions(path) for path in completions])
    paired = pair_up(table, read_table(best), count, halves.selection, seed)
    criteria = {
        name: config.read_goal(goals / f"{name}.yaml").criterion for name in paired["goal"].unique()
    }
    preferences = judge_pairs(paired, criteria, _service(judge, calls, ledger))
    write_ratings(output, preferences, rate(preferences, halves.bootstrap, halves.level, seed))


@app.command()
def divergence(
    completions: CompletionFiles,
    vector: Annotated[
        list[Path],
        typer.Option(help="vector.safetensors of every completions.parquet, in their order."),
    ],
    model: options.ModelFolder,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure how far steering moves the model on each completion."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.steering.divergence import divergences
    from saeflow.analyses.steering.io import load_vector
    from saeflow.analyses.steering.summary_io import DIVERGENCE_SCHEMA
    from saeflow.tables import write_table

    lm, measured = options.open_model(model, dtype), []
    for path, file in zip(completions, vector, strict=True):
        written, steered = read_completions(path), load_vector(file)
        if set(written["method"]) != {steered.method}:
            raise SaeflowError(f"{file}: is not the vector that {path} was written with")
        measured.append(
            divergences(
                lm,
                steered.hook,
                steered.of_width(lm.d_model),
                written,
                progress=options.progress(f"{steered.method}, completions"),
            )
        )
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
