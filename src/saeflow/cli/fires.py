"""``saeflow fires``: which latents a text makes fire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.errors import SaeflowError


def fires(
    text: Annotated[str, typer.Argument(help="The text.")],
    study: Annotated[
        Path | None,
        typer.Option(help="Folder of a study's results; default is the only one below results/."),
    ] = None,
    sae: Annotated[str | None, typer.Option(help="One of its SAEs; default is its first.")] = None,
    top: Annotated[int, typer.Option(help="How many latents.", min=1)] = 10,
) -> None:
    """List the latents that fire most on a text: the largest activation, the token that has it, and
    on how many tokens they fire. The token that opens every text is left out."""
    options.use_device(2)
    from saeflow.analyses.finished import FinishedStudy, only_study
    from saeflow.notebook.models import capture

    opened = FinishedStudy.read(study or only_study())
    name = sae or opened.study.target_sae
    folder = opened.sae(name)
    if opened.study.saes[name].kind in ("crosscoder", "difference"):
        raise SaeflowError(f"fires: '{name}' reads several places; name an SAE of one")
    reader, lm = options.open_sae(folder), options.open_model(opened.model)
    hook = opened.study.hook_of(name)
    rows = capture(lm, text, hook, exclude="bos")[hook]
    if not len(rows.activations):
        raise SaeflowError("fires: the text has no token; give some words")
    latents = reader.encode(rows.activations.to(lm.device)).cpu()
    largest, where = latents.max(0)
    order = largest.argsort(descending=True)[:top]
    options.say(f"{'latent':>8}{'largest':>10}{'tokens':>8}   at")
    for latent in order.tolist():
        if largest[latent] > 0:
            token = lm.tokenizer.decode([int(rows.tokens[where[latent]])])
            count = int((latents[:, latent] > 0).sum())
            options.say(f"{latent:>8}{largest[latent]:>10.3f}{count:>8}   {token!r}")
