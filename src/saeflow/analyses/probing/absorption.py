"""Feature absorption on the first letters of words: a latent that should fire does not, and another
that stands for the word itself holds its share.

Source: Chanin et al. 2024, "A is for Absorption", arXiv 2409.14507, in the form that SAEBench
(Karvonen et al. 2025, arXiv 2503.09532, and its program 0.6) gives it: no ablation, and a share for
absorption in part. What is not as there: words are whole ones of two letters or more; the probe on
activations sees scaled columns and is fitted to the end. The regression that ranks latents sees
values of unit spread at a price of its own: there Adam takes some dozen steps on values as they
are, so that its ranks hang on the SAE's units.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int64

from saeflow.analyses.probing.logistic import Scaling
from saeflow.analyses.probing.sparse_columns import Latents, columns
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

JUMP, MOST_SPLIT = 0.03, 10
"""By how much one latent more must raise F1 to be another of a letter's own latents, and how many
these may be."""
ALONE_COSINE, TOGETHER_COSINE, LEAST_SHARE, MOST_ABSORBING = 0.025, 0.1, 0.4, 3
"""Least cosine with the probe of one latent that absorbs alone, and of up to three that do so
together; least share of the probe's projection that they hold."""
TEMPLATE = "\n{word} has the first letter: {letter}"
_SPACES = ("\u0120", "\u2581", " ")  # as byte-level BPE, SentencePiece and others write them
LEAST_WORDS = 10
"""Of a letter, on either side of a split; letters with fewer are left out."""
ABSORPTION: Schema = {
    "sae": pl.String,
    "seed": pl.Int32,
    "letter": pl.String,
    "train_words": pl.Int32,
    "test_words": pl.Int32,
    "words": pl.Int32,
    "probed": pl.Int32,
    "probe_f1": pl.Float64,
    "latents": pl.List(pl.Int32),
    "f1": pl.Float64,
    "full_absorption": pl.Float64,
    "absorption_fraction": pl.Float64,
}
"""Of `test_words`, `words` begin with the letter, and the probe on activations knows `probed` of
them; `latents` are the letter's own and `f1` what these know. The last two are means over the
`probed`."""


class Words(NamedTuple):
    """Words of a model's vocabulary.

    Attributes:
        ids: of their tokens.
        letters: which letter of the alphabet each begins with.
    """

    ids: Int64[np.ndarray, " n"]
    letters: Int64[np.ndarray, " n"]


class Projections(NamedTuple):
    """What the latents of some words write along a probe's direction.

    Attributes:
        whole: projection of each activation on the direction, which has unit norm.
        own: of the letter's own latents, all together.
        fires: whether any of them is active.
        alone: the largest of all latents.
        alone_cosine: of that latent's decoder row with the direction.
        together: of the largest few that are no own ones and lie along the direction.
    """

    whole: Float64[np.ndarray, " n"]
    own: Float64[np.ndarray, " n"]
    fires: Bool[np.ndarray, " n"]
    alone: Float64[np.ndarray, " n"]
    alone_cosine: Float64[np.ndarray, " n"]
    together: Float64[np.ndarray, " n"]


def words_of(tokens: Sequence[str], most: int, seed: int) -> Words:
    """Words of two letters or more that are one token, as it stands behind a space where the
    tokenizer makes a difference of that.

    Args:
        tokens: of the vocabulary, as the tokenizer writes them, with a mark in place of a space.
        most: how many; of more they are drawn.
        seed: of the study.
    """
    marked = any(token.startswith(_SPACES) for token in tokens)
    places = []
    for place, token in enumerate(tokens):
        word = token.lstrip("".join(_SPACES)).lower()
        whole = len(word) < len(token) or not marked
        if whole and len(word) > 1 and word.isascii() and word.isalpha():
            places.append((place, string.ascii_lowercase.index(word[0])))
    if len(places) > most:
        drawn = numpy_generator(seed, "probing", "words").permutation(len(places))[:most]
        places = [places[place] for place in sorted(drawn.tolist())]
    ids, letters = np.array(places, np.int64).reshape(-1, 2).T
    return Words(ids, letters)


def shown_before(words: Sequence[str], number: int, count: int, seed: int) -> str:
    """Words with their first letters, that stand before one of them in a prompt.

    Args:
        words: all of them, with the space before them where there is one.
        number: of the one that they stand before.
        count: how many.
        seed: of the study.
    """
    drawn = numpy_generator(seed, "probing", "shown", number).permutation(len(words))
    others = [words[other] for other in drawn.tolist()[: count + 1] if other != number][:count]
    lines = (TEMPLATE.format(word=word, letter=word.strip()[0].upper()) for word in others)
    return "".join(lines) + "\n"


def absorption(
    sae: str,
    decoder: Float[np.ndarray, "d_sae d_model"],
    activations: Float[np.ndarray, "n d_model"],
    latents: Latents,
    letters: Int64[np.ndarray, " n"],
    seeds: int,
    test: float,
    seed: int,
) -> pl.DataFrame:
    """How often latents of first letters are absorbed, by letter and split.

    A probe tells the letter from activations. The letter's own latents are those that tell it best:
    the first, and further ones for as long as each raises F1 by more than `JUMP`. Of the words for
    testing that the probe knows, one is absorbed wholly where no own latent is active and another
    holds at least `LEAST_SHARE` of the probe's projection; in part by the share of what own latents
    and up to three others hold together that is the others'.

    Args:
        sae: its name.
        decoder: its decoder.
        activations: of every word, at its token.
        latents: of the same words.
        letters: that they begin with.
        seeds: splits, drawn anew.
        test: share of the words for testing.
        seed: of the study.

    Returns:
        `ABSORPTION`; a letter that the probe knows in no word is left out.
    """
    rows: list[dict[str, Any]] = []
    for draw in range(seeds):
        order = numpy_generator(seed, "probing", "letters", draw).permutation(len(letters))
        held, train = np.split(order, [round(test * len(order))])
        scaling = Scaling.of(activations[train]) if len(train) else None
        for letter, name in enumerate(string.ascii_lowercase):
            y = letters == letter
            if scaling is None or min(y[train].sum(), y[held].sum()) < LEAST_WORDS:
                continue
            probe = _balanced(scaling.scaled(activations[train]), y[train])
            says = probe.predict(scaling.scaled(activations[held]))
            probed = held[y[held] & says]
            if not len(probed):
                continue
            own, f1 = own_latents(latents, y, train, held)
            direction = probe.coef_[0] / scaling.spread
            seen = projections(activations[probed], latents[probed], decoder, own, _unit(direction))
            rows.append(
                {
                    "sae": sae,
                    "seed": draw,
                    "letter": name,
                    "train_words": len(train),
                    "test_words": len(held),
                    "words": int(y[held].sum()),
                    "probed": len(probed),
                    "probe_f1": _f1(y[held], says),
                    "latents": own.tolist(),
                    "f1": f1,
                    "full_absorption": float(absorbed_wholly(seen).mean()),
                    "absorption_fraction": float(absorbed_share(seen).mean()),
                }
            )
    return pl.DataFrame(rows, schema=ABSORPTION)


def own_latents(
    latents: Latents,
    y: Bool[np.ndarray, " n"],
    train: Int64[np.ndarray, " m"],
    held: Int64[np.ndarray, " l"],
) -> tuple[Int64[np.ndarray, " own"], float]:
    """The latents that stand for a letter, and F1 of what they tell together.

    They are ranked by the weights of a regression with a price on absolute weights over all
    latents, of training words alone.
    """
    weights = _lasso(latents[train], y[train])
    ranked = np.argsort(-weights, kind="stable")[:MOST_SPLIT]
    of_train, of_held = (columns(latents[rows], ranked) for rows in (train, held))
    best = 0.0
    for k in range(1, len(ranked) + 1):
        model = _balanced(of_train[:, :k], y[train], 500)
        f1 = _f1(y[held], model.predict(of_held[:, :k]))
        if k > 1 and f1 - best <= JUMP:
            return ranked[: k - 1], best
        best = f1
    return ranked, best


def projections(
    activations: Float[np.ndarray, "n d_model"],
    latents: Latents,
    decoder: Float[np.ndarray, "d_sae d_model"],
    own: Int64[np.ndarray, " own"],
    direction: Float64[np.ndarray, " d_model"],
) -> Projections:
    """What own latents and others write along a direction of unit norm."""
    along = decoder @ direction
    cosines = along / np.linalg.norm(decoder, axis=1).clip(1e-12)
    written = latents.toarray().astype(np.float64) * along
    largest = written.argmax(axis=1)
    others = np.where((cosines >= TOGETHER_COSINE) & (written > 0), written, 0.0)
    others[:, own] = 0.0
    few = min(MOST_ABSORBING, others.shape[1])
    return Projections(
        whole=activations @ direction,
        own=written[:, own].sum(axis=1),
        fires=(columns(latents, own) != 0).any(axis=1),
        alone=written[np.arange(len(written)), largest],
        alone_cosine=cosines[largest],
        together=np.partition(others, -few, axis=1)[:, -few:].sum(axis=1),
    )


def absorbed_wholly(seen: Projections) -> Bool[np.ndarray, " n"]:
    """Where no own latent is active and one other holds the direction."""
    holds = (seen.alone_cosine >= ALONE_COSINE) & (seen.alone >= LEAST_SHARE * seen.whole)
    return ~seen.fires & (seen.whole > 0) & holds


def absorbed_share(seen: Projections) -> Float64[np.ndarray, " n"]:
    """The share of what own latents and a few others hold of the direction that is the others'; 0
    where own latents hold all of it, or the others too little."""
    missing = np.minimum(seen.together, seen.whole - seen.own)
    share = np.divide(missing, missing + seen.own, out=np.ones_like(missing), where=seen.own > 0)
    little = (seen.whole <= 0) | (seen.together < LEAST_SHARE * seen.whole)
    return np.where(little | (seen.own >= seen.whole), 0.0, share.clip(0.0, 1.0))


def _unit(direction: Float64[np.ndarray, " d"]) -> Float64[np.ndarray, " d"]:
    return np.asarray(direction / max(float(np.linalg.norm(direction)), 1e-12))


def _balanced(x: Any, y: Bool[np.ndarray, " n"], iterations: int = 200) -> Any:
    """A logistic regression in which both sides weigh the same, as one letter is rare."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what has not converged tells as well
        return LogisticRegression(class_weight="balanced", max_iter=iterations).fit(x, y)


def _lasso(latents: Latents, y: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " d_sae"]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        l1_ratio=1.0,
        solver="liblinear",
        class_weight="balanced",
        max_iter=100,
        tol=1e-3,
        random_state=0,
    )
    x = latents.copy()
    x.data = x.data / max(float(x.data.std()), 1e-12) if x.nnz else x.data
    x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(x, y).coef_[0])


def _f1(y: Bool[np.ndarray, " n"], says: Bool[np.ndarray, " n"]) -> float:
    both = float((y & says).sum())
    return 2 * both / max(float(y.sum() + says.sum()), 1.0)
