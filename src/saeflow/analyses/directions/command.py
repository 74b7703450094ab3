"""``saeflow directions``: what directions do when they are taken out or added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from saeflow.analyses.directions.building import Fixed, Reading
    from saeflow.analyses.directions.prompts import AskedPrompts

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

    asked, named = _asked(settings, sources, prompts, seed)
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
    from saeflow.analyses.directions.building import CANDIDATES, build, kept, material
    from saeflow.analyses.directions.io import load_activations, save_direction
    from saeflow.tables import write_table

    asked, named = _asked(settings, sources, prompts, seed)
    all_sources = options.parsed(DirectionSources, sources)
    chosen = options.parsed(Selection, selection)
    lm = options.open_model(model, dtype)
    reading = _reading(lm, named, table, activations)
    if direction in all_sources.searched:
        keep = kept(reading, asked, chosen)
        values = reading.stored.values
        if source:
            first, second = (load_activations(file).values for file in source)
            values = first - second
        made_of: Any = material(direction, all_sources, asked, named, values, keep)
    else:
        made_of = _fixed(all_sources, direction, source[0], hook, lm.d_model)
    kind = next(
        each for each in DirectionSources.model_fields if direction in getattr(all_sources, each)
    )
    result, scored = build(
        lm,
        reading,
        made_of,
        asked,
        chosen,
        behaviour_tokens(lm, options.parsed(Behaviour, behaviour)),
        seed,
        {"name": direction, "model": model.name, "kind": kind},
        options.progress(f"score candidates of {direction}"),
    )
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
    from saeflow.analyses.directions.activations import behaviour_tokens
    from saeflow.analyses.directions.building import test_prompts, trials
    from saeflow.analyses.directions.interventions import ANSWERS, measure
    from saeflow.analyses.directions.io import load_direction
    from saeflow.analyses.directions.prompts import token_rows
    from saeflow.analyses.directions.summary import EDITS, summarise
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import write_table

    asked, named = _asked(settings, sources, prompts, seed)
    shown = options.parsed(Behaviour, behaviour)
    own = options.parsed(EditMeasures, measures)
    lm = options.open_model(model, dtype)
    tried = trials(load_direction(direction), own, seed)
    measured = measure(
        lm,
        tried,
        test_prompts(named, token_rows(lm, named.prompts), asked, own.prompts),
        asked.without_it,
        load_blocks(corpus).tokens[: own.loss_blocks],
        shown,
        behaviour_tokens(lm, shown),
        own,
        options.progress("try edits"),
    )
    write_table(answers, measured.answers, ANSWERS)
    write_table(output, summarise(measured, own, seed), EDITS)


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

    from saeflow.analyses.directions.activations import behaviour_tokens
    from saeflow.analyses.directions.building import kept, material, test_prompts
    from saeflow.analyses.directions.interventions import measure
    from saeflow.analyses.directions.io import load_direction
    from saeflow.analyses.directions.transfer import (
        ANGLES,
        TRANSFER,
        angles_between,
        moved,
        transferred,
    )
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import write_table

    asked, named = _asked(settings, sources, prompts, seed)
    all_sources = options.parsed(DirectionSources, sources)
    shown = options.parsed(Behaviour, behaviour)
    own = options.parsed(EditMeasures, measures)
    chosen = options.parsed(Selection, selection)
    lm = options.open_model(model, dtype)
    directions = [load_direction(file) for file in direction]
    readings = {
        place.parent.name: _reading(lm, named, file, place)
        for file, place in zip(table, activations, strict=True)
    }
    tested = test_prompts(named, readings[model.name].rows, asked, own.prompts)
    blocks = load_blocks(corpus).tokens[: own.loss_blocks]
    tokens = behaviour_tokens(lm, shown)
    beat = options.progress("try directions of other models")
    tables = []
    for number, of_model in enumerate(directions):
        tried = moved(of_model, lm)
        measured = measure(lm, tried, tested, asked.without_it, blocks, shown, tokens, own)
        tables.append(transferred(measured, of_model, own, seed))
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


def _asked(
    settings: str, sources: str, prompts: list[Path], seed: int
) -> tuple[DirectionPrompts, AskedPrompts]:
    """What is asked, and the prompts."""
    from saeflow.analyses.directions.prompts import read_prompts

    asked = options.parsed(DirectionPrompts, settings)
    file = prompts[0] if prompts else None
    return asked, read_prompts(asked, options.parsed(DirectionSources, sources), file, seed)


def _reading(lm: Any, named: AskedPrompts, table: Path, activations: Path) -> Reading:
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
) -> Fixed:
    """The vector of a latent or of a file."""
    from saeflow.analyses.directions.building import Fixed
    from saeflow.analyses.directions.io import read_vector

    if name in sources.vector:
        source = sources.vector[name]
        vector = read_vector(source, file, d_model, name)
        return Fixed(vector, int(source.hook.split(".")[1]))
    latent, sae = sources.latent[name].latent, options.open_sae(file.parent)
    assert hook is not None, "the rule tells where the SAE reads"
    if latent >= sae.W_dec.shape[0]:
        raise SaeflowError(
            f"directions.sources.latent.{name}.latent: {latent} is not below "
            f"{sae.W_dec.shape[0]}, the latents of the SAE"
        )
    vector = sae.W_dec[latent].float().cpu()
    if not vector.any():
        raise SaeflowError(
            f"directions.sources.latent.{name}.latent: the decoder's row of latent {latent} is "
            "zero; name another"
        )
    return Fixed(vector / vector.norm(), int(hook.split(".")[1]))
