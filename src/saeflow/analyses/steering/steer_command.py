"""``saeflow steer``: a vector of a study tried at the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.analyses.finished import FinishedStudy, only_study
from saeflow.analyses.steering.methods import BUILDING
from saeflow.analyses.steering.settings import Completions
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.analyses.steering.io import SteeringVector

_METHODS = ", ".join(method.name for method in BUILDING)


def steer(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    goal: Annotated[str | None, typer.Option(help="A goal of the study, with --method.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"How its vector was built, as the study has it: {_METHODS}."),
    ] = None,
    latent: Annotated[
        int | None, typer.Option(help="Steer with the decoder row of a latent.", min=0)
    ] = None,
    sae: Annotated[
        str | None, typer.Option(help="The latent's SAE; default is the study's first.")
    ] = None,
    vector: Annotated[
        Path | None, typer.Option(help="A vector.safetensors, in place of a goal or a latent.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(help="Folder of a study's results; default is the only one below results/."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            help=(
                "How much is added, in the study's unit: multiples of the mean activation norm "
                "unless its config says otherwise; below 0 it steers away. Default is the scale "
                "that the study chose."
            )
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model; default is the study's.")
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
    from saeflow.analyses.steering.completions import complete
    from saeflow.analyses.steering.io import load_vector

    if sum((vector is not None, goal is not None, latent is not None)) != 1:
        raise SaeflowError("steer: give one of --goal with --method, --latent, or --vector")
    if scale is not None and not math.isfinite(scale):
        raise SaeflowError(f"steer: --scale {scale:g} is no finite number")
    folder = study or (_around(vector) if vector else only_study())
    opened = FinishedStudy.read(folder) if folder else None
    if opened and latent is not None:
        loaded = _of_latent(opened, sae or opened.study.target_sae, latent)
    elif opened and goal is not None:
        named = f"steering/{goal}/{method or 'none'}/vector.safetensors"
        loaded = load_vector(_there(opened.file(named), method))
    else:
        assert vector
        loaded = load_vector(vector)
    if scale is None:
        scale = _chosen_scale(opened, loaded)
    norm = _unit(opened, loaded) if opened else 1.0
    if not model:
        if not opened:
            raise SaeflowError(f"steer: {vector} lies in no study; name the model with --model")
        model = opened.model
    settings = Completions(
        prompts=[[config.Message(role="user", content=prompt)] if chat else prompt],
        samples=max(samples, 4),
        new_tokens=new_tokens,
        sampling=config.Sampling(temperature=temperature),
    )
    lm = options.open_model(model)
    table = complete(
        lm,
        loaded.hook,
        loaded.of_width(lm.d_model),
        [0.0, scale * norm * loaded.norm],
        settings,
        seed,
        goal=loaded.goal,
        method=loaded.method,
    )
    unit = f" × {norm:.3g}, the mean norm at {loaded.hook}" if norm != 1 else ""
    steered = f"{loaded.goal} by {loaded.method}, scale {scale:g}{unit}"
    for index, title in enumerate(("unsteered", steered)):
        typer.secho(title, bold=True)
        texts = table.filter(scale_index=index)["continuation" if chat else "text"]
        for text in texts.head(samples):
            options.say(f"  {text}")


def _around(vector: Path) -> Path | None:
    """The folder of the study's results that a ``steering/<goal>/<method>/vector.safetensors`` lies
    in, or one of ``steering/<goal>/search/<method>-layer-<n>``."""
    above = vector.resolve().parents[3:5]
    return next((root for root in above if (root / "config.yaml").is_file()), None)


def _there(file: Path, method: str | None) -> Path:
    """A ``steering/<goal>/<method>/vector.safetensors`` that is there, of a method that is
    named."""
    if not method or not file.is_file():
        goal, steering = file.parents[1], file.parents[2]
        beside = sorted(path.parent for path in steering.glob("*/*/vector.safetensors"))
        methods = ", ".join(path.name for path in beside if path.parent == goal)
        goals = ", ".join(sorted({path.parent.name for path in beside}))
        if methods and not method:
            offered = f"--goal needs --method; goal '{goal.name}' has {methods}"
        elif methods:
            offered = f"of goal '{goal.name}' there is no method '{method}'; it has {methods}"
        elif goals:
            offered = f"there is no goal '{goal.name}'; the study has {goals}"
        else:
            offered = f"{file} is not there; run the study first"
        raise SaeflowError(f"steer: {offered}")
    return file


def _of_latent(opened: FinishedStudy, sae: str, latent: int) -> SteeringVector:
    from torch.nn.functional import normalize

    from saeflow.analyses.steering.io import SteeringVector
    from saeflow.saes.io import load_sae

    weights = load_sae(opened.sae(sae))
    if latent >= weights.d_sae:
        raise SaeflowError(f"steer: SAE '{sae}' has latents 0 to {weights.d_sae - 1}")
    return SteeringVector.towards(
        {latent: 1.0},
        normalize(weights.W_dec[latent].detach().double(), dim=0).float(),
        hook=opened.study.hook_of(sae),
        goal=f"latent {latent}",
        method="sae",
        norm=1.0,
    )


def _chosen_scale(opened: FinishedStudy | None, loaded: SteeringVector) -> float:
    """The scale that the study chose for a vector, in its unit."""
    import polars as pl

    from saeflow.analyses.steering.summary import BEST_SCHEMA

    if opened and (steering := opened.study.steering):
        file = opened.file("steering/best.parquet")
        best = pl.read_parquet(file) if file.is_file() else pl.DataFrame(schema=BEST_SCHEMA)
        row = best.filter(goal=loaded.goal, method=loaded.method)
        if len(row):
            return steering.completions.scales[row["scale_index"][0]]
    raise SaeflowError(f"steer: no scale was chosen for {loaded.goal}; give --scale")


def _unit(opened: FinishedStudy, loaded: SteeringVector) -> float:
    """What a scale of 1 is: the mean norm of the activations at the vector's hook, unless the study
    says otherwise, or has no cache there."""
    from saeflow.activations.io import ActivationStore

    steering = opened.study.steering
    if steering and steering.completions.scale_unit == "absolute":
        return 1.0
    if "mean_norm" in loaded.metadata:  # a search measured it, at a layer that need not be cached
        return float(loaded.metadata["mean_norm"])
    cache = opened.file(f"activations/{opened.study.model.name}/{loaded.hook}/manifest.json")
    if not cache.is_file():
        raise SaeflowError(f"steer: {cache} is not there, which says how large activations are")
    return ActivationStore.open(cache.parent).mean_norm
