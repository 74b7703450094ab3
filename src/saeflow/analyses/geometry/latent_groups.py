"""Latents that stand for the words of a set: those whose strongest contexts fire on one of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from saeflow.analyses.geometry.settings import PATTERNS, WORDS
from saeflow.analyses.logit_lens.token_sets import holder
from saeflow.config import TokenSet
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.analyses.geometry.settings import LatentGroup, Latents, Points

LEAST_LATENTS = 3
"""Of a group: fewer span no plane."""
MEMBERS = {
    "group": pl.String,
    "sae": pl.String,
    "latent": pl.Int32,
    "how": pl.String,
    "contexts": pl.Int32,
    "share": pl.Float64,
    "word": pl.String,
    "word_share": pl.Float64,
    "kind": pl.String,
}
"""`how`: found by its contexts, or given. `share` of them fire on the set, and `word_share` on the
one `word` that most fire on; `kind` is specific where that is enough, else general."""
GROUPS = {
    "group": pl.String,
    "sae": pl.String,
    "hook": pl.String,
    "width": pl.Int32,
    "latents": pl.Int32,
    "specific": pl.Int32,
    "general": pl.Int32,
    "words": pl.Int32,
    "left_out": pl.String,
}
"""`words` have specific latents. `left_out`: why nothing more is said of the group in the SAE."""


class WordSet(NamedTuple):
    """What a group of latents is of.

    Attributes:
        described: the set.
        order: its words in an order that closes; none where it does not.
        unit: what is looked up in it, a token or a word.
    """

    described: TokenSet
    order: Sequence[str]
    unit: str


def word_set(
    name: str, group: LatentGroup, points: Points, sets: Mapping[str, TokenSet]
) -> WordSet:
    """What a group of latents is of.

    Args:
        name: of the group.
        group: what the config says of it.
        points: whose group of that name it is of, where it says nothing else.
        sets: of the user's files.

    Raises:
        SaeflowError: no file has the set.
    """
    order: Sequence[str] = ()
    if group.kind in PATTERNS:
        described = TokenSet(pattern=PATTERNS[group.kind])
    elif group.pattern is not None:
        described = TokenSet(pattern=group.pattern)
    elif group.token_set is not None:
        if group.token_set not in sets:
            raise SaeflowError(
                f"geometry.latents.groups.{name}.token_set: no file of geometry.latents.files has "
                f"the set '{group.token_set}' but {', '.join(sets) or 'none'}; name one of these"
            )
        described = sets[group.token_set]
    elif group.words is not None:
        described = TokenSet(words=group.words)
    else:
        order = WORDS[group.kind] if group.kind else points.groups[name].members
        described = TokenSet(words=list(order))
    return WordSet(described, order, group.unit)


def firing_texts(contexts: pl.DataFrame, texts: Mapping[int, str], unit: str) -> pl.DataFrame:
    """What latents fire on in their strongest contexts, one per block of text.

    Args:
        contexts: those of the analysis `examples`.
        texts: of tokens, by id.
        unit: ``token``, or the ``word`` that it is part of: as far as letters and digits go on,
            with the space before it.

    Returns:
        latent, text.
    """
    top = contexts.filter(group="top").select("latent", "offset", "token_ids")
    if unit == "token":
        fired = pl.col("token_ids").list.get(pl.col("offset"))
        vocabulary = pl.DataFrame(
            {"fired": list(texts), "text": list(texts.values())},
            schema={"fired": pl.Int32, "text": pl.String},
        )
        named = top.select("latent", fired=fired).join(vocabulary, on="fired", how="left")
        return named.select("latent", pl.col("text").fill_null(""))
    words = [
        _word_at([texts.get(token, "") for token in tokens], offset)
        for _, offset, tokens in top.iter_rows()
    ]
    return top.select("latent").with_columns(pl.Series("text", words, pl.String))


def _word_at(tokens: Sequence[str], at: int) -> str:
    """The word that a token is part of."""
    first = last = at
    while first and tokens[first][:1].isalnum() and tokens[first - 1][-1:].isalnum():
        first -= 1
    if first and tokens[first][:1].isalnum() and tokens[first - 1] == " ":  # a space of its own
        first -= 1
    while last + 1 < len(tokens) and tokens[last + 1][:1].isalnum():
        if not (tokens[last][-1:].isalnum() or tokens[last] == " "):
            break
        last += 1
    return "".join(tokens[first : last + 1])


def members(
    name: str,
    sae: str,
    of: WordSet,
    fired: pl.DataFrame,
    asked: Latents,
    given: Sequence[int] | None,
) -> pl.DataFrame:
    """The latents of a group in one SAE.

    Args:
        name: of the group.
        sae: of the SAE.
        of: what they stand for.
        fired: what its latents fire on, from `firing_texts`.
        asked: how large a share of how many contexts is enough.
        given: latents that are taken in place of those that contexts would find.

    Returns:
        `MEMBERS`, by latent.
    """
    holds = holder(of.described)
    kinds = fired["text"].unique().to_list()
    named = {text: _named(text, of.order) for text in kinds if holds(text)}
    of_set = pl.DataFrame(
        {"text": list(named), "word": list(named.values())},
        schema={"text": pl.String, "word": pl.String},
    )
    joined = fired.join(of_set, on="text", how="left")
    counts = joined.group_by("latent").agg(contexts=pl.len(), share=pl.col("word").count())
    counts = counts.with_columns(pl.col("share") / pl.col("contexts"))
    if given is None:
        enough = (pl.col("contexts") >= asked.contexts) & (pl.col("share") >= asked.share)
        chosen = counts.filter(enough)["latent"].sort().to_list()
    else:
        chosen = sorted(given)
    said = {latent: (n, share) for latent, n, share in counts.iter_rows()}
    words_of: dict[int, Counter[str]] = {latent: Counter() for latent in chosen}
    for latent, word in joined.drop_nulls("word").select("latent", "word").iter_rows():
        if latent in words_of:
            words_of[latent][word] += 1
    rows = []
    for latent, words in words_of.items():
        contexts, share = said.get(latent, (0, None))
        word, most = min(words.items(), key=lambda of: (-of[1], of[0]), default=(None, 0))
        word_share = most / contexts if contexts else None
        kind = "specific" if word_share and word_share >= asked.share else "general"
        how = "found" if given is None else "given"
        rows.append((name, sae, latent, how, contexts, share, word, word_share, kind))
    return pl.DataFrame(rows, schema=MEMBERS, orient="row")


def _named(text: str, order: Sequence[str]) -> str:
    """A word as the order has it, else as it is written."""
    word = text.strip()
    return next((each for each in order if each.lower() == word.lower()), word)


def shortage(table: pl.DataFrame, name: str, sae: str, asked: Latents) -> str | None:
    """What keeps a group from telling anything, as a sentence."""
    if len(table) >= LEAST_LATENTS:
        return None
    if len(table) and (table["how"] == "given").all():
        why = f"are given, and {LEAST_LATENTS} are the least; give more"
    else:
        why = (
            f"fire on the set in {asked.share:g} of {asked.contexts} contexts or more, and "
            f"{LEAST_LATENTS} are the least; lower geometry.latents.share, or take a wider SAE"
        )
    return f"{name}: {len(table)} latents of {sae} {why}"


def group_row(
    table: pl.DataFrame, name: str, sae: str, hook: str, width: int, left_out: str | None
) -> tuple[object, ...]:
    """A row of `GROUPS`."""
    specific = table.filter(kind="specific")
    counted = (len(table), len(specific), len(table) - len(specific))
    return (name, sae, hook, width, *counted, specific["word"].n_unique(), left_out)


def number_of(word: str | None) -> float | None:
    """The number that a word says, such as 1980 for ``1980s``; none where it is none."""
    said = re.fullmatch(r"\s*(\d+)s?", word or "")
    return float(said[1]) if said else None
