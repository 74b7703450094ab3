"""Which latents get labels."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from saeflow.analyses.labels.settings import LabelledLatents
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

CHOSEN: Schema = {
    "latent": pl.Int32,
    "why": pl.String,
    "tokens": pl.Int64,
    "density": pl.Float64,
    "maximum": pl.Float32,
}


def choose_latents(
    activity: pl.DataFrame, asked: LabelledLatents, targets: Collection[int], sae: str, seed: int
) -> pl.DataFrame:
    """The latents that get labels, in order of number.

    Args:
        activity: of all latents: latent, tokens, density, maximum.
        asked: which.
        targets: those that goals are aimed at.
        sae: whose they are; it names the draw.
        seed: of the study.

    Returns:
        The columns of `CHOSEN`; ``why`` is listed, target or drawn.

    Raises:
        SaeflowError: a latent that is listed does not exist, or none fires often enough.
    """
    if beyond := [latent for latent in asked.listed if latent >= len(activity)]:
        raise SaeflowError(
            f"labels.latents.listed: {beyond[0]} is not below {len(activity)}, the latents of "
            f"'{sae}'"
        )
    why = dict.fromkeys(asked.listed, "listed")
    why |= {latent: "target" for latent in targets if latent not in why}
    often = activity.filter(pl.col("tokens") >= asked.least)["latent"].to_numpy()
    open_ = often[~np.isin(often, list(why))]
    count = min(asked.drawn, len(open_))
    drawn = numpy_generator(seed, "labels", "latents", sae).choice(open_, count, replace=False)
    why |= {int(latent): "drawn" for latent in drawn}
    if not why:
        raise SaeflowError(
            f"labels.latents.least: no latent of '{sae}' fires on {asked.least} tokens; lower it, "
            "or list latents"
        )
    named = pl.DataFrame({"latent": list(why), "why": list(why.values())})
    return (
        named.cast({"latent": pl.Int32})
        .join(activity, on="latent", how="left")
        .select(pl.col(name).cast(kind) for name, kind in CHOSEN.items())
        .sort("latent")
    )
