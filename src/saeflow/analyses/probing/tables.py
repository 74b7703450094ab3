"""From files to tables: rows of all sets, results of one, summaries of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from saeflow.analyses.probing.accuracy import ACCURACY, accuracies
from saeflow.analyses.probing.basis import BASIS, basis
from saeflow.analyses.probing.design import RESULTS, probe_set, sources
from saeflow.analyses.probing.io import load_representations, save_representations
from saeflow.analyses.probing.numbers import probe_numbers
from saeflow.analyses.probing.rows import ROWS, Representations, TokenRows, token_rows
from saeflow.analyses.probing.settings import Comparison, Fitting, Reading, Regimes
from saeflow.analyses.probing.summary import (
    DIFFERENCES,
    QUIVER,
    SUMMARY,
    compare,
    joined,
    quiver,
    summarise,
)
from saeflow.config.sections.labelled import LabelledTexts
from saeflow.corpora.labelled import LabelledSet, read_labelled
from saeflow.errors import SaeflowError
from saeflow.tables import Schema, read_table, write_table

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

SETS: Schema = {
    "set": pl.String,
    "test_set": pl.String,
    "task": pl.String,
    "licence": pl.String,
    "classes": pl.String,
    "rows": pl.Int32,
    "groups": pl.Int32,
    **dict.fromkeys(
        ("blank", "other", "repeated", "contradictory", "balanced", "truncated"), pl.Int32
    ),
    "tokens": pl.Float64,
    "skipped": pl.String,
}
"""One row per set and shifted test set; `skipped` says why a set is not probed."""
LEAST_ROWS = 16
"""Of each class, as they are left: fewer make no split with folds on one side and a test on the
other."""


class Readers(NamedTuple):
    """What reads texts: a model, hooks, and SAEs by name with their hooks."""

    lm: LanguageModel
    hooks: Sequence[str]
    saes: Mapping[str, tuple[str, SAE]]


def write_rows(
    output: Path,
    sets: Mapping[str, LabelledTexts],
    files: Mapping[str, Path],
    readers: Readers,
    reading: Reading,
    seed: int,
    progress: Callable[[str], Callable[[int, int], None]],
) -> None:
    """Write ``<set>/rows.parquet`` and ``<set>/rows.safetensors`` of every set, and ``sets``.

    A set that tells nothing, such as one of a single class, is told and has no rows; a file that
    cannot be read is an error.

    Args:
        output: the folder.
        sets: what the catalogue says of them.
        files: where they lie, by the name of the set, or ``set/test_set``.
        readers: what reads them.
        reading: which texts, and where in them.
        seed: of the study.
        progress: makes what is told of a set's rows.
    """
    from saeflow.analyses.probing.reading import represent

    set_rows: list[dict[str, Any]] = []
    empty = Representations({hook: np.zeros((0, 1), np.float32) for hook in readers.hooks}, {})
    for name, source in sets.items():
        rows, skipped = _rows_of(name, source, files, readers, reading, seed)
        table, represented = pl.DataFrame(schema=ROWS), empty
        if rows is not None and skipped is None:
            table = rows.table
            represented = represent(
                readers.lm,
                rows.tokens,
                reading,
                readers.hooks,
                readers.saes,
                progress(f"{name}, rows"),
            )
        if skipped:
            print(f"probing: {name} is skipped: it {skipped}", flush=True)
        set_rows += _set_rows(name, source, rows, skipped)
        write_table(output / name / "rows.parquet", table, ROWS)
        save_representations(output / name / "rows.safetensors", represented)
    for end in ("parquet", "csv"):
        write_table(output / f"sets.{end}", pl.DataFrame(set_rows, schema=SETS), SETS)


def _rows_of(
    name: str,
    source: LabelledTexts,
    files: Mapping[str, Path],
    readers: Readers,
    reading: Reading,
    seed: int,
) -> tuple[TokenRows | None, str | None]:
    """The rows of a set, and why it is skipped, if it is."""
    from saeflow.analyses.probing.reading import tokeniser

    texts = read_labelled(source, name, files.get(name))
    if shortage := texts.shortage(LEAST_ROWS):
        return None, shortage
    shifted = {
        test: read_labelled(of, f"{name}/{test}", files.get(f"{name}/{test}"), texts)
        for test, of in source.shifted.items()
    }
    tokenizer: Any = readers.lm.tokenizer
    rows = token_rows(
        texts,
        shifted,
        tokeniser(readers.lm),
        min(reading.context, readers.lm.context),
        readers.lm.bos_id,
        reading.rows,
        seed,
        lambda ids: str(tokenizer.decode(ids)),
        reading.keep,
    )
    shortage = rows.texts.shortage(LEAST_ROWS)
    return (
        rows,
        shortage and f"{shortage.removesuffix('; add some')}, once texts are cut and cleared",
    )


def _set_rows(
    name: str, source: LabelledTexts, rows: TokenRows | None, skipped: str | None
) -> list[dict[str, Any]]:
    whole = {"set": name, "task": source.task, "licence": source.licence, "skipped": skipped}
    if rows is None:
        return [whole | {"test_set": "", "rows": 0}]
    rows_of_set = []
    for test_set, removed in rows.removed.items():
        own = rows.table.filter(test_set=test_set)
        rows_of_set.append(
            whole
            | removed._asdict()
            | {
                "test_set": test_set,
                "classes": ", ".join(rows.texts.classes) or "numbers",
                "rows": len(own),
                "groups": own["group"].n_unique(),
                "tokens": own["tokens"].mean(),
            }
        )
    return rows_of_set


def probe_rows(
    name: str,
    rows: Path,
    representations: Path,
    fitting: Fitting,
    regimes: Regimes,
    hook_of: Mapping[str, str],
    seed: int,
    outputs: tuple[Path, Path, Path],
    progress: Callable[[int, int], None],
) -> None:
    """Write results of all probes on one set, and the latents that they rest on.

    Args:
        name: of the set.
        rows: ``rows.parquet``.
        representations: ``rows.safetensors``.
        fitting: how probes are fitted.
        regimes: on what else.
        hook_of: where each SAE reads.
        seed: of the study.
        outputs: of the results, of the basis, and of accuracies.
        progress: is told of the seeds.
    """
    table = read_table(rows, ROWS)
    results, bases = pl.DataFrame(schema=RESULTS), pl.DataFrame(schema=BASIS)
    scores = pl.DataFrame(schema=ACCURACY)
    if len(table):
        represented = load_representations(representations)
        texts, shifted = _sets_of(name, table)
        listed = sources(name, represented, table, fitting, hook_of, seed)
        probe = probe_set if texts.classes else probe_numbers
        results = probe(texts, shifted, listed, fitting, regimes, seed, progress)
        if texts.classes:
            scores = accuracies(texts, represented, fitting, seed)
            n = len(texts)
            bases = pl.concat(
                [bases]
                + [
                    basis(texts, table[:n], latents[:n], sae, fitting, seed)
                    for sae, latents in represented.latents.items()
                ]
            )
    write_table(outputs[0], results, RESULTS)
    write_table(outputs[1], bases, BASIS)
    write_table(outputs[2], scores, ACCURACY)


def _sets_of(name: str, table: pl.DataFrame) -> tuple[LabelledSet, dict[str, Any]]:
    """The set itself, without its texts, and the rows and classes or numbers of shifted test
    sets."""
    own = table.filter(test_set="")
    of_classes = own["number"].null_count() == len(own)
    target = "class" if of_classes else "number"
    labels = own.unique("class").sort("class")["label"].to_list() if of_classes else []
    texts = LabelledSet(
        name,
        [""] * len(own),
        labels,
        own[target].to_numpy().astype(np.float64),
        own["group"].to_numpy().astype(np.int64),
    )
    shifted = {
        test_set: (
            part["row"].to_numpy().astype(np.int64),
            part[target].to_numpy().astype(np.float64),
        )
        for (test_set,), part in table.filter(pl.col("test_set") != "").group_by(
            "test_set", maintain_order=True
        )
    }
    return texts, {str(key): value for key, value in shifted.items()}


def write_summaries(
    output: Path,
    results: Sequence[Path],
    bases: Sequence[Path],
    settings: Comparison,
    seed: int,
    controls: Sequence[tuple[str, str]] = (),
) -> None:
    """Write ``summary``, ``differences``, ``quiver`` and ``basis``, each also as .csv.

    Args:
        output: the folder.
        results: of every set.
        bases: of every set.
        settings: of intervals.
        seed: of the study.
        controls: SAEs, each with a control of it.
    """
    every = joined([read_table(path, RESULTS) for path in results], RESULTS)
    if every.is_empty():
        raise SaeflowError(
            "probing: every set is skipped, as probing/sets.csv says; name others in probing.sets"
        )
    chosen = quiver(every)
    tables = {
        "summary": (summarise(every, settings.level), SUMMARY),
        "differences": (compare(every, chosen, settings, seed, controls), DIFFERENCES),
        "quiver": (chosen, QUIVER),
        "basis": (joined([read_table(path, BASIS) for path in bases], BASIS), BASIS),
    }
    for name, (table, schema) in tables.items():
        for end in ("parquet", "csv"):
            write_table(output / f"{name}.{end}", table, schema)
