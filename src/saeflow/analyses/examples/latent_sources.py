"""Reading the tables about latents, a range at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PolarsError
from safetensors import SafetensorError, safe_open

from saeflow import seals
from saeflow.analyses.examples.latent_index import PROMOTED, LatentTables, joined
from saeflow.analyses.examples.latent_pages import (
    LatentDetails,
    Related,
    Rows,
    by_latent,
    chunks,
    gap,
    in_steps,
    moved,
    nearest,
    page_values,
)
from saeflow.errors import DamagedError
from saeflow.report.folder import StudyFolder
from saeflow.tensors import open_hdf5

BATCH = 1024
"""Latents whose tables are in memory at once."""
ROWS = 128
"""Rows of cosines or effects in memory at once."""


class LatentSources:
    """The files of a study that tell of the latents of one SAE."""

    def __init__(self, folder: StudyFolder, sae: str) -> None:
        self.folder, self.sae = folder, sae
        self.examples = self._of("examples", "example_sae")
        self.lens = self._of("logit_lens", "lens_sae")
        for directory in (self.examples, self.lens):
            for path in sorted(directory.glob("*.parquet")) if directory else ():
                seals.check(path)
        self.tables = LatentTables(
            activity=_collected(self.examples, "latents", _whole),
            lens=_collected(self.lens, "latents", _whole),
            promoted=_promoted(self.lens),
            sets=_best_sets(self.lens),
            fits=_fits(folder, sae),
        )
        self.statistics = joined(self.tables)

    def _of(self, key: str, name: str) -> Path | None:
        """The folder of what an analysis says of this SAE's latents; None where it does not look
        at it."""
        looked_at = self.folder.names(key).get(name, ())
        return self.folder.root / key / self.sae if self.sae in looked_at else None

    @property
    def neuronpedia(self) -> str | None:
        """What the SAE is called on Neuronpedia, where its files say it."""
        metadata = self.folder.json(f"saes/{self.sae}/cfg.json").get("metadata", {})
        name = metadata.get("neuronpedia_id") if isinstance(metadata, dict) else None
        return str(name) if name else None

    def pages(self) -> Iterator[dict[str, Any]]:
        """The pages of all latents, file by file."""
        vocabulary, numbers, decoder = self._vocabulary(), self._numbers(), self._decoder()
        between = gap(vocabulary.values())
        with ExitStack() as stack:
            effects = self._effects(stack)
            for first in range(0, self.tables.latents, BATCH):
                last = min(first + BATCH, self.tables.latents)
                details = self._details(first, last)
                for latents in chunks(first, last):
                    related = _related(latents, decoder, effects)
                    yield {
                        "gap": between,
                        **page_values(latents, numbers, details, related, vocabulary),
                    }

    def _numbers(self) -> pl.DataFrame:
        """The statistics as a page shows them: the share of tokens itself, not its logarithm."""
        table = self.statistics
        return (
            table.with_columns(density=10.0 ** pl.col("density"))
            if "density" in table.columns
            else table
        )

    def _details(self, first: int, last: int) -> LatentDetails:
        lens, examples = self.lens, self.examples
        return LatentDetails(
            contexts=by_latent(
                in_steps(_range(examples, "contexts", first, last), self.statistics)
            ),
            histogram=_rows(examples, "histogram", first, last),
            weights=_rows(lens, "histograms", first, last),
            tokens=_rows(lens, "tokens", first, last),
            enrichment=_rows(lens, "enrichment", first, last),
            cofiring=_rows(examples, "cofiring", first, last),
            causal=_rows(lens, "causal_latents", first, last),
        )

    def _vocabulary(self) -> dict[int, str]:
        """What tokens stand for, by their ids: all where the lens was applied, else those of
        contexts."""
        lens = self.folder.table("logit_lens/vocabulary") if self.lens else pl.DataFrame()
        tables = (_collected(self.examples, "vocabulary", _whole), lens)
        return {
            token: text
            for table in tables
            if len(table)
            for token, text in table.select("token_id", "token").iter_rows()
        }

    def _decoder(self) -> NDArray[np.float32] | None:
        """Decoder rows of unit norm, ``[d_sae, d_model]``; None where the SAE is not there."""
        path = self.folder.path(f"saes/{self.sae}/sae_weights.safetensors")
        if not path.is_file():
            return None
        try:
            seals.check(path)
            with safe_open(path, framework="numpy") as file:
                tensor = file.get_tensor("W_dec").astype(np.float32)
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{path}: holds no decoder ({error})", [path]) from None
        decoder = tensor.reshape(len(tensor), -1)  # of a crosscoder, over all sources together
        decoder /= np.maximum(np.linalg.norm(decoder, axis=1, keepdims=True), 1e-12)
        return decoder

    def _effects(self, stack: ExitStack) -> _Effects | None:
        """The effects of vectors along this SAE's decoder rows; None where other vectors were
        measured."""
        path = self.folder.path(f"effects/{self.sae}/effects.h5")
        vectors = getattr(self.folder.section("effects"), "vectors", None)
        targets = self.folder.names("effects").get("target_sae", ())
        along = vectors and vectors.kind == "decoder" and vectors.sae in (None, self.sae)
        if not along or self.sae not in targets or not path.is_file():
            return None
        try:
            seals.check(path)
            return _Effects(stack.enter_context(open_hdf5(path)))
        except (OSError, KeyError) as error:
            raise DamagedError(f"{path}: cannot be read as effects ({error})", [path]) from None


class _Effects:
    """Rows of ``effects.h5`` by the number of their vector."""

    def __init__(self, file: Any) -> None:
        self.effects, self.added = file["effects"], file["scale"][:] > 0
        self.places = {int(vector): place for place, vector in enumerate(file["vector_id"][:])}

    def rows(self, latents: range) -> dict[int, NDArray[np.float32]]:
        """Of each latent with a vector that was added at all, its effects."""
        places = {latent: self.places[latent] for latent in latents if latent in self.places}
        if not places:
            return {}
        first, last = min(places.values()), max(places.values()) + 1
        block = self.effects[first:last].astype(np.float32)
        return {
            latent: block[place - first] for latent, place in places.items() if self.added[place]
        }


def _related(
    latents: range, decoder: NDArray[np.float32] | None, effects: _Effects | None
) -> dict[int, Related]:
    related = {}
    for start in range(latents.start, latents.stop, ROWS):
        part = range(start, min(start + ROWS, latents.stop))
        near = (
            nearest(decoder, part)
            if decoder is not None and part.stop <= len(decoder)
            else [[] for _ in part]
        )
        rows = effects.rows(part) if effects else {}
        for latent, closest in zip(part, near, strict=True):
            raised, lowered = moved(rows[latent]) if latent in rows else ([], [])
            related[latent] = Related(closest, raised, lowered)
    return related


def _whole(scan: pl.LazyFrame) -> pl.LazyFrame:
    return scan


def _rows(folder: Path | None, name: str, first: int, last: int) -> Rows:
    return by_latent(_range(folder, name, first, last))


def _range(folder: Path | None, name: str, first: int, last: int) -> pl.DataFrame:
    """The rows of a table about the latents from ``first`` up to ``last``; row groups without any
    are not read."""
    latent = pl.col("latent")
    return _collected(folder, name, lambda scan: scan.filter(latent >= first, latent < last))


def _promoted(folder: Path | None) -> pl.DataFrame:
    wanted = (pl.col("side") == "top") & (pl.col("rank") < PROMOTED)
    return _collected(
        folder, "tokens", lambda scan: scan.filter(wanted).select("latent", "rank", "token")
    )


def _best_sets(folder: Path | None) -> pl.DataFrame:
    """Of each latent the enriched set with the largest score, of equal ones the first by name."""
    table = _collected(
        folder,
        "enrichment",
        lambda scan: scan.select("latent", pl.col("set").cast(pl.String), "ks"),
    )
    if table.is_empty():
        return table
    ranked = table.sort("latent", pl.col("ks").abs(), "set", descending=[False, True, False])
    return ranked.unique("latent", keep="first", maintain_order=True)


def _fits(folder: StudyFolder, sae: str) -> pl.DataFrame:
    if sae not in folder.names("effects").get("target_sae", ()):
        return pl.DataFrame()
    table = folder.table(f"effects/{sae}/latents")
    return (
        table.select("latent", "r2") if {"latent", "r2"} <= set(table.columns) else pl.DataFrame()
    )


def _collected(
    folder: Path | None, name: str, wanted: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> pl.DataFrame:
    """What is wanted of a table; nothing where the config does not ask for it or it is not
    there."""
    if folder is None or not (folder / f"{name}.parquet").is_file():
        return pl.DataFrame()
    path = folder / f"{name}.parquet"
    try:
        return wanted(pl.scan_parquet(path)).collect()
    except (OSError, PolarsError) as error:
        raise DamagedError(
            f"{path}: is no whole Parquet table ({str(error).splitlines()[0]})", [path]
        ) from None
