"""How SAEs score on probes: accuracies of few latents, and feature absorption; from files to
tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64

from saeflow.analyses.probing.absorption import ABSORPTION, absorption, shown_before, words_of
from saeflow.analyses.probing.accuracy import ACCURACY, LATENTS
from saeflow.analyses.probing.io import load_representations, save_representations
from saeflow.analyses.probing.settings import Fitting, Reading
from saeflow.saes.summary import summarise_saes, summary_schema
from saeflow.tables import Schema, read_table, write_table

if TYPE_CHECKING:
    from saeflow.analyses.probing.tables import Readers

WORDS: Schema = {"token": pl.Int32, "word": pl.String, "letter": pl.Int32}
OF_LETTERS = {
    "full_absorption": "full_absorption",
    "absorption_fraction": "absorption_fraction",
    "letter_f1": "f1",
    "split_latents": "own",
}


class LeastKnown(NamedTuple):
    """What a probe on activations must know of letters for an SAE to be given a score.

    Attributes:
        f1: on test words, above which it knows a letter.
        letters: how many.
    """

    f1: float
    letters: int


SCORES = (*(f"sparse_probing_{k}" for k in LATENTS), "activation_probing", *OF_LETTERS)
SAES = summary_schema(SCORES)


def write_words(
    output: Path,
    readers: Readers,
    most: int,
    shown: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write ``words.parquet`` and ``words.safetensors``: words of the vocabulary, each read alone
    or behind others with their first letters.

    What stands behind a word cannot change what a causal model holds at it.

    Args:
        output: the folder.
        readers: what reads them.
        most: words.
        shown: words that stand before each.
        seed: of the study.
        progress: is told of the words.
    """
    from saeflow.analyses.probing.reading import represent

    tokenizer: Any = readers.lm.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words = words_of([token or "" for token in tokens], most, seed)
    ids = words.ids.tolist()
    rows = [[readers.lm.bos_id, token] for token in ids]
    if shown:
        texts = [str(tokenizer.decode([token])) for token in ids]
        before = [shown_before(texts, number, shown, seed) for number in range(len(ids))]
        rows = [
            [*readers.lm.tokenize(text), token] for text, token in zip(before, ids, strict=True)
        ]
    represented = represent(readers.lm, rows, Reading(), readers.hooks, readers.saes, progress)
    said = [tokens[place] for place in words.ids]
    table = pl.DataFrame({"token": words.ids, "word": said, "letter": words.letters})
    write_table(output / "words.parquet", table.cast(dict(WORDS)), WORDS)  # type: ignore[arg-type]
    save_representations(output / "words.safetensors", represented)


def write_absorption(
    output: Path,
    words: Path,
    representations: Path,
    folders: Mapping[tuple[str, str], Path],
    fitting: Fitting,
    seed: int,
) -> None:
    """Write ``absorption.parquet`` of every SAE that rebuilds what it reads.

    Args:
        output: the file.
        words: ``words.parquet``.
        representations: ``words.safetensors``.
        folders: of SAEs, by name and hook.
        fitting: how many splits are drawn, and how.
        seed: of the study.
    """
    from saeflow.saes.io import load_sae

    letters = read_table(words, WORDS)["letter"].to_numpy().astype(np.int64)
    represented = load_representations(representations)
    tables = [pl.DataFrame(schema=ABSORPTION)]
    for (name, hook), folder in folders.items():
        activations, decoder = represented.activations[hook], load_sae(folder).W_dec.numpy()
        if decoder.shape[1] == activations.shape[1]:
            latents = represented.latents[name]
            tables.append(
                absorption(
                    name, decoder, activations, latents, letters, fitting.seeds, fitting.test, seed
                )
            )
        print(f"probing: absorption of {name}", flush=True)
    write_table(output, pl.concat(tables), ABSORPTION)


def write_scores(
    output: Path,
    saes: Mapping[str, Mapping[str, Any]],
    hook_of: Mapping[str, str],
    accuracies: Sequence[Path],
    absorbed: Path | None,
    least: LeastKnown,
) -> None:
    """Write ``saes.parquet`` and ``saes.csv``: a row per SAE, or per SAEs that differ in their seed
    alone.

    Args:
        output: the folder.
        saes: what each SAE of the study is.
        hook_of: where each SAE that was probed reads.
        accuracies: ``accuracy.parquet`` of every set.
        absorbed: ``absorption.parquet``, where it was measured.
        least: what the probe on activations must know of letters.
    """
    accuracy = pl.concat([read_table(path, ACCURACY) for path in accuracies])
    letters = read_table(absorbed, ABSORPTION) if absorbed else pl.DataFrame(schema=ABSORPTION)
    counted = known_letters(letters, least)
    for name in hook_of if absorbed else ():
        if name in letters["sae"] and name not in counted["sae"]:
            print(
                f"probing: activations tell fewer than {least.letters} first letters with an F1 "
                f"above {least.f1:g}, so {name} is given no absorption; lower "
                "probing.absorption.letters, or take a larger model",
                flush=True,
            )
    measured = {name: scores(name, hook, accuracy, counted) for name, hook in hook_of.items()}
    table = summarise_saes({name: saes[name] for name in measured}, measured, SCORES, "splits")
    for end in ("parquet", "csv"):
        write_table(output / f"saes.{end}", table, SAES)


def known_letters(letters: pl.DataFrame, least: LeastKnown) -> pl.DataFrame:
    """Letters that the probe on activations knows, of those splits in which it knows enough."""
    kept = letters.filter(pl.col("probe_f1") > least.f1)
    return kept.filter(pl.len().over("sae", "seed") >= least.letters)


def controls_of(saes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each SAE that was trained with each control of it: what is trained alike but for that.

    Args:
        saes: what each SAE is, by name.
    """

    def alike(sae: Mapping[str, Any]) -> dict[str, Any]:
        left_out = {"control": None, "init_from": None}
        return {**sae, "training": {**sae["training"], **left_out}}

    trained = {name: sae for name, sae in saes.items() if sae["training"]}
    return [
        (name, other)
        for name, sae in trained.items()
        if not sae["training"].get("control")
        for other, its in trained.items()
        if its["training"].get("control") and alike(its) == alike(sae)
    ]


def scores(name: str, hook: str, accuracy: pl.DataFrame, letters: pl.DataFrame) -> dict[str, float]:
    """Means over sets, or letters, and splits, each with its standard error over splits, corrected
    as these share rows (Nadeau and Bengio 2003).

    Args:
        name: of an SAE.
        hook: where it reads.
        accuracy: `ACCURACY` of all sets.
        letters: `ABSORPTION`.
    """
    metrics: dict[str, float] = {}
    wanted = [(f"sparse_probing_{k}", "latents", name, k) for k in LATENTS]
    for metric, kind, of, k in [*wanted, ("activation_probing", "activations", hook, 0)]:
        own = accuracy.filter(kind=kind, of=of, k=k)
        if len(own):
            means = own.group_by("seed").agg(pl.col("accuracy").mean()).sort("seed")
            ratio = float((own["test_rows"] / own["train_rows"]).mean())  # type: ignore[arg-type]
            metrics |= _with_error(metric, means["accuracy"].to_numpy(), ratio)
    own = letters.filter(sae=name).with_columns(own=pl.col("latents").list.len())
    if len(own):
        columns = [pl.col(column).mean().alias(metric) for metric, column in OF_LETTERS.items()]
        ratio = float((own["test_words"] / own["train_words"]).mean())  # type: ignore[arg-type]
        by_split = own.group_by("seed").agg(columns).sort("seed")
        for metric in OF_LETTERS:
            metrics |= _with_error(metric, by_split[metric].to_numpy(), ratio)
    return metrics


def _with_error(
    metric: str, values: Float64[np.ndarray, " splits"], ratio: float
) -> dict[str, float]:
    """The mean, and its standard error; `ratio` is rows for testing per row for training."""
    with_error = {metric: float(values.mean())}
    if len(values) > 1:
        with_error[f"{metric}_se"] = float(np.sqrt((1 / len(values) + ratio) * values.var(ddof=1)))
    return with_error
