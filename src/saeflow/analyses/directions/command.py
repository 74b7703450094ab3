"""``saeflow directions``: what directions do when they are taken out or added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import options
from saeflow.analyses.directions.settings import (
    Behaviour,
    DirectionPrompts,
    DirectionSources,
    EditMeasures,
    Selection,
)
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from torch import Tensor

    from saeflow.analyses.directions.building import Reading
    from saeflow.analyses.directions.interventions import Measured, Trial
    from saeflow.analyses.directions.prompts import AskedPrompts
    from saeflow.models.language_model import LanguageModel

app = typer.Typer(help="Measure directions in the residual stream.", no_args_is_help=True)

PromptsFile = Annotated[
    list[Path], typer.Option("--prompts", help="File of the prompts, where they have one.")
]
Sources = Annotated[str, typer.Option(help="The section `directions.sources`, as JSON.")]
HowShown = Annotated[
    str, typer.Option("--behaviour", help="The section `directions.behaviour`, as JSON.")
]
Chosen = Annotated[
    str, typer.Option("--selection", help="The section `directions.selection`, as JSON.")
]
Measures = Annotated[
    str, typer.Option("--measures", help="The section `directions.measures`, as JSON.")
]
Activations = Annotated[Path, typer.Option(help="activations.safetensors of the model.")]
OfPrompts = Annotated[Path, typer.Option("--table", help="prompts.parquet of the model.")]
Named = Annotated[str, typer.Option("--direction", help="Name of the direction.")]


@app.callback()
def stage() -> None:
    """Measure directions in the residual stream."""


@app.command()
def read(
    model: options.ModelFolder,
    settings: options.Settings,
    sources: Sources,
    behaviour: HowShown,
    selection: Chosen,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Where prompts.parquet is written.")],
    activations: Activations,
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Read what a model holds of all prompts, at every position and layer, in one pass."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.directions.activations import behaviour_tokens, read_activations
    from saeflow.analyses.directions.building import Reading, kept
    from saeflow.analyses.directions.io import PROMPTS, StoredActivations, save_activations
    from saeflow.analyses.directions.prompts import token_positions, token_rows
    from saeflow.tables import write_table

    asked, named = asked_prompts(settings, sources, prompts, seed)
    chosen = options.parsed(Selection, selection)
    lm = options.open_model(model, dtype)
    rows = token_rows(lm, named.prompts)
    positions, places = token_positions(lm, named.prompts, rows, chosen.positions)
    layers = sorted(chosen.layers or range(lm.n_layers))
    if layers[-1] >= lm.n_layers:
        raise SaeflowError(
            f"directions.selection.layers: layer {layers[-1]} does not exist; the model has 0 to "
            f"{lm.n_layers - 1}"
        )
    _check_layers(options.parsed(DirectionSources, sources), lm.n_layers)
    tokens = behaviour_tokens(lm, options.parsed(Behaviour, behaviour))
    beat = options.progress("read prompts")
    values, log_odds = read_activations(lm, rows, places, layers, tokens, beat)
    stored = StoredActivations(values, positions, layers)
    save_activations(activations, stored)
    table = pl.DataFrame(
        {
            "prompt": range(len(rows)),
            "label": named.classes,
            "split": named.splits,
            "group": named.groups,
            "tokens": [len(row) for row in rows],
            "log_odds": log_odds,
            "kept": kept(Reading(named, rows, stored, log_odds), asked, chosen),
        }
    )
    write_table(output, table, PROMPTS)


@app.command()
def choose(
    model: options.ModelFolder,
    settings: options.Settings,
    sources: Sources,
    behaviour: HowShown,
    selection: Chosen,
    seed: options.Seed,
    direction: Named,
    table: OfPrompts,
    activations: Activations,
    output: Annotated[Path, typer.Option(help="Where direction.safetensors is written.")],
    candidates: Annotated[Path, typer.Option(help="Where candidates.parquet is written.")],
    hook: Annotated[str | None, typer.Option(help="Of a latent: where its SAE reads.")] = None,
    source: Annotated[
        list[Path], typer.Option(help="Activations of two models, an SAE, or a vector.")
    ] = [],  # noqa: B006 - typer's
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Score the candidates of a direction on validation prompts, and take one by the rule."""
    options.use_device(threads)
    from saeflow.analyses.directions.activations import behaviour_tokens
    from saeflow.analyses.directions.building import (
        CANDIDATES,
        build,
        classes,
        fixed,
        kept,
        material,
        searched,
    )
    from saeflow.analyses.directions.io import load_activations, save_direction
    from saeflow.tables import write_table

    asked, named = asked_prompts(settings, sources, prompts, seed)
    all_sources = options.parsed(DirectionSources, sources)
    chosen = options.parsed(Selection, selection)
    lm = options.open_model(model, dtype)
    reading = _reading(lm, named, table, activations)
    if direction in all_sources.searched:
        values = reading.stored.values
        if source:
            first, second = (load_activations(file).values for file in source)
            values = first - second
        keep = kept(reading, asked, chosen)
        made_of = material(direction, all_sources, asked, named, values, keep)
        possible = searched(reading, made_of, asked, chosen, seed, direction)
    else:
        vector, layer = _fixed(all_sources, direction, source[0], hook, lm.d_model)
        possible = fixed(reading, vector, layer, asked)
    kind = next(
        each for each in DirectionSources.model_fields if direction in getattr(all_sources, each)
    )
    difference = all_sources.difference_of_models.get(direction)
    said = {
        "name": direction,
        "model": model.name,
        "kind": kind,
        "classes": classes(direction, all_sources, asked),
        "between": [asked.with_it, asked.without_it],
        "models": [difference.model, difference.less] if difference else [],
    }
    tokens = behaviour_tokens(lm, options.parsed(Behaviour, behaviour))
    beat = options.progress(f"score candidates of {direction}")
    result, scored = build(lm, reading, possible, asked, chosen, tokens, seed, said, beat)
    write_table(candidates, scored, CANDIDATES)
    save_direction(output, result)


@app.command()
def measure(
    model: options.ModelFolder,
    settings: options.Settings,
    sources: Sources,
    behaviour: HowShown,
    measures: Measures,
    seed: options.Seed,
    direction: Annotated[Path, typer.Option(help="direction.safetensors")],
    corpus: options.Corpus,
    output: Annotated[Path, typer.Option(help="Where edits.parquet is written.")],
    answers: Annotated[Path, typer.Option(help="Where answers.parquet is written.")],
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Take a direction out and add it, beside its controls, and measure on test prompts."""
    options.use_device(threads)
    from saeflow.analyses.directions.building import trials
    from saeflow.analyses.directions.interventions import ANSWERS
    from saeflow.analyses.directions.io import load_direction
    from saeflow.analyses.directions.summary import EDITS, summarise
    from saeflow.tables import write_table

    asked, named = asked_prompts(settings, sources, prompts, seed)
    own = options.parsed(EditMeasures, measures)
    attempt = trying(options.open_model(model, dtype), asked, named, behaviour, own, corpus)
    measured = attempt(trials(load_direction(direction), own, seed), options.progress("try edits"))
    write_table(answers, measured.answers, ANSWERS)
    write_table(output, summarise(measured, own, seed), EDITS)


@app.command()
def judge(
    answers: Annotated[Path, typer.Argument(help="answers.parquet, with texts.")],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    settings: options.Settings,
    asked: Annotated[str, typer.Option(help="The section `directions.prompts`, as JSON.")],
    sources: Sources,
    measures: Measures,
    seed: options.Seed,
    verdicts: Annotated[Path, typer.Option(help="Where verdicts.parquet is written.")],
    output: Annotated[Path, typer.Option(help="Where judged.parquet is written.")],
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    ledger: options.LedgerFile | None = None,
    calls: options.Calls = "{}",
    threads: options.Threads = 1,
) -> None:
    """Have a judge say of every answer whether it shows the behaviour."""
    options.set_pools(threads)
    from saeflow.analyses.directions.interventions import ANSWERS
    from saeflow.analyses.directions.judged import VERDICTS, judge_answers
    from saeflow.analyses.directions.summary import EDITS, summarise_scores
    from saeflow.config import Judge
    from saeflow.endpoint.inquiries import AskedBy
    from saeflow.endpoint.opening import open_service
    from saeflow.judging.goals import read_goal_for
    from saeflow.tables import read_table, write_table

    who, own = options.parsed(Judge, settings), options.parsed(EditMeasures, measures)
    _, named = asked_prompts(asked, sources, prompts, seed)
    service = None
    if who.traits.is_hosted:
        asked_by = AskedBy("judge", "directions.judged.judge", "directions.measures.new_tokens")
        service = open_service(who, calls, ledger, "judge answers", asked_by)
    table = read_table(answers, ANSWERS)
    scored = judge_answers(table, named.prompts, read_goal_for(who, goal), who, service)
    write_table(verdicts, scored, VERDICTS)
    write_table(output, summarise_scores(scored, own, seed), EDITS)


@app.command()
def transfer(
    model: options.ModelFolder,
    settings: options.Settings,
    sources: Sources,
    behaviour: HowShown,
    selection: Chosen,
    measures: Measures,
    seed: options.Seed,
    direction: Annotated[
        list[Path], typer.Option(help="direction.safetensors of every model and direction.")
    ],
    table: Annotated[list[Path], typer.Option(help="prompts.parquet of every model.")],
    activations: Annotated[
        list[Path], typer.Option(help="activations.safetensors of every model.")
    ],
    corpus: options.Corpus,
    output: Annotated[Path, typer.Option(help="Where transfer.parquet is written.")],
    angles: Annotated[Path, typer.Option(help="Where angles.parquet is written.")],
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Try the directions of all models on one, and tell how alike they are."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.directions.building import kept, material
    from saeflow.analyses.directions.io import load_direction
    from saeflow.analyses.directions.transfer import (
        ANGLES,
        TRANSFER,
        angles_between,
        moved,
        transferred,
    )
    from saeflow.tables import write_table

    asked, named = asked_prompts(settings, sources, prompts, seed)
    all_sources = options.parsed(DirectionSources, sources)
    own = options.parsed(EditMeasures, measures)
    chosen = options.parsed(Selection, selection)
    lm = options.open_model(model, dtype)
    directions = [load_direction(file) for file in direction]
    readings = {
        place.parent.name: _reading(lm, named, file, place)
        for file, place in zip(table, activations, strict=True)
    }
    attempt = trying(lm, asked, named, behaviour, own, corpus)
    beat = options.progress("try directions of other models")
    tables = []
    for number, of_model in enumerate(directions):
        tables.append(transferred(attempt(moved(of_model, lm), None), of_model, own, seed))
        beat(number + 1, len(directions))
    write_table(output, pl.concat(tables), TRANSFER)
    compared = []
    for name in all_sources.contrast:
        made = {
            each: material(
                name, all_sources, asked, named, its.stored.values, kept(its, asked, chosen)
            ).difference
            for each, its in readings.items()
        }
        stored = readings[model.name].stored
        mine = made.pop(model.name)
        compared.append(angles_between(mine, made, stored.positions, stored.layers, name))
    write_table(angles, pl.concat(compared) if compared else pl.DataFrame(schema=ANGLES), ANGLES)


def trying(
    lm: LanguageModel,
    asked: DirectionPrompts,
    named: AskedPrompts,
    behaviour: str,
    own: EditMeasures,
    corpus: Path,
) -> Callable[[Sequence[Trial], Callable[[int, int], None] | None], Measured]:
    """What tries edits on a model: on its test prompts, and on blocks of a corpus.

    Args:
        lm: the model.
        asked: the section of the prompts.
        named: the prompts.
        behaviour: how it is told, as JSON.
        own: what is measured.
        corpus: file of the blocks.
    """
    from saeflow.analyses.directions.activations import behaviour_tokens
    from saeflow.analyses.directions.building import test_prompts
    from saeflow.analyses.directions.interventions import measure
    from saeflow.analyses.directions.prompts import token_rows
    from saeflow.corpora.io import load_blocks

    shown = options.parsed(Behaviour, behaviour)
    tested = test_prompts(named, token_rows(lm, named.prompts), asked, own.prompts)
    blocks = load_blocks(corpus).tokens[: own.loss_blocks]
    tokens = behaviour_tokens(lm, shown)
    return lambda trials, progress: measure(
        lm, trials, tested, asked.without_it, blocks, shown, tokens, own, progress
    )


def asked_prompts(
    settings: str, sources: str, prompts: list[Path], seed: int
) -> tuple[DirectionPrompts, AskedPrompts]:
    """What is asked, and the prompts."""
    from saeflow.analyses.directions.prompts import read_prompts

    asked = options.parsed(DirectionPrompts, settings)
    file = prompts[0] if prompts else None
    return asked, read_prompts(asked, options.parsed(DirectionSources, sources), file, seed)


def _reading(lm: LanguageModel, named: AskedPrompts, table: Path, activations: Path) -> Reading:
    """The prompts as a model read them; their tokens are those of the model that is opened."""
    from saeflow.analyses.directions.building import Reading
    from saeflow.analyses.directions.io import PROMPTS, load_activations
    from saeflow.analyses.directions.prompts import token_rows
    from saeflow.tables import read_table

    log_odds = read_table(table, PROMPTS)["log_odds"].to_numpy()
    rows = token_rows(lm, named.prompts)
    return Reading(named, rows, load_activations(activations), log_odds)


def _check_layers(sources: DirectionSources, n_layers: int) -> None:
    """See that the model has the layers of vectors of files."""
    for name, vector in sources.vector.items():
        if int(vector.hook.split(".")[1]) >= n_layers:
            raise SaeflowError(
                f"directions.sources.vector.{name}.hook: '{vector.hook}' does not exist; the model "
                f"has layers 0 to {n_layers - 1}"
            )


def _fixed(
    sources: DirectionSources, name: str, file: Path, hook: str | None, d_model: int
) -> tuple[Tensor, int]:
    """The vector of a latent or of a file, of unit norm, and its layer."""
    from saeflow.analyses.directions.candidates import unit
    from saeflow.analyses.directions.io import read_vector

    if source := sources.vector.get(name):
        key = f"directions.sources.vector.{name}"
        vector = read_vector(file, d_model, key, source.tensor)
        return unit(vector).float(), int(source.hook.split(".")[1])
    latent, sae = sources.latent[name].latent, options.open_sae(file.parent)
    key = f"directions.sources.latent.{name}.latent"
    assert hook is not None, "the rule tells where the SAE reads"
    if latent >= sae.W_dec.shape[0]:
        raise SaeflowError(
            f"{key}: {latent} is not below {sae.W_dec.shape[0]}, the latents of the SAE"
        )
    vector = sae.W_dec[latent].float().cpu()
    if not vector.any():
        raise SaeflowError(f"{key}: the decoder's row of latent {latent} is zero; name another")
    return unit(vector), int(hook.split(".")[1])
