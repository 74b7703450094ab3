"""Words turned round their circle and texts moved along their line: whether the model goes by them.

A perfect probe can be of no use to the model. What is measured here stands beside how well circle
and line are told, and beside moves along random directions that are as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saeflow.analyses.geometry.circle import best_plane
from saeflow.analyses.geometry.line import fit_line
from saeflow.analyses.geometry.reading import Filled, Read, filled, texts_of
from saeflow.analyses.geometry.settings import SLOT
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach, parse_hook
from saeflow.models.running import capture, clean_and_again, logits_after, padded
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import SHARE, Resampling, cells

if TYPE_CHECKING:
    from saeflow.analyses.geometry.reading import Files
    from saeflow.analyses.geometry.settings import Nulls, Points
    from saeflow.models.language_model import LanguageModel

TURNS = {
    "group": pl.String,
    "hook": pl.String,
    "prompt": pl.String,
    "word": pl.Int32,
    "edit": pl.String,
    "kind": pl.String,
    "control": pl.Int32,
    "turn": pl.Int32,
    "right": pl.Float64,
    "moved": pl.Float64,
    "log_odds": pl.Float64,
}
SHIFTS = {
    "line": pl.String,
    "hook": pl.String,
    "prompt": pl.String,
    "text": pl.Int32,
    "kind": pl.String,
    "control": pl.Int32,
    "step": pl.Float64,
    "log_odds": pl.Float64,
    "change": pl.Float64,
}
CAUSES = {
    "of": pl.String,
    "hook": pl.String,
    "edit": pl.String,
    "kind": pl.String,
    "step": pl.Float64,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int32,
}
ROWS_AT_ONCE = 32


class Moved(NamedTuple):
    """Tables of `TURNS`, `SHIFTS` and `CAUSES`."""

    turns: pl.DataFrame
    shifts: pl.DataFrame
    causes: pl.DataFrame


def move_all(
    lm: LanguageModel,
    read: Read,
    asked: Points,
    nulls: Nulls,
    hooks: Sequence[str],
    files: Files,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Moved:
    """Turn the words of every group and move the texts of every line, where prompts are given.

    Args:
        lm: the model.
        read: what it holds of words and texts, which circles and lines are fitted to.
        asked: groups and lines.
        nulls: what moves are held against.
        hooks: where it is moved.
        files: of lines, by name.
        seed: of the study.
        progress: called with (groups and lines moved, all of them).
    """
    turns: list[pl.DataFrame] = [pl.DataFrame(schema=TURNS)]
    shifts: list[pl.DataFrame] = [pl.DataFrame(schema=SHIFTS)]
    todo = [
        *(
            (name, hook, True)
            for hook in hooks
            for name, each in asked.groups.items()
            if each.prompts
        ),
        *(
            (name, hook, False)
            for hook in hooks
            for name, each in asked.lines.items()
            if each.cause
        ),
    ]
    for done, (name, hook, circle) in enumerate(todo, start=1):
        if circle:
            turns.append(turn_words(lm, read, asked, nulls, name, hook, seed))
        else:
            shifts.append(shift_texts(lm, read, asked, nulls, name, hook, files, seed))
        if progress:
            progress(done, len(todo))
    turned, shifted = pl.concat(turns), pl.concat(shifts)
    return Moved(turned, shifted, summarise(turned, shifted, nulls, seed))


def turn_words(
    lm: LanguageModel, read: Read, asked: Points, nulls: Nulls, name: str, hook: str, seed: int
) -> pl.DataFrame:
    """Turn every word of a group to every other place of its circle, and take it to the centre.

    Returns:
        The columns of `TURNS`. ``right``: of the group's words the model finds the one likeliest
        that is right for the word as written; ``moved``: the one that is right for where it was
        turned to; ``log_odds`` of the latter against the former, less those without an edit. For
        words taken to the centre, those of the right word against the mean of the others.
    """
    group, words = asked.groups[name], asked.groups[name].members
    n = len(words)
    plane = best_plane(read.words(name, hook).mean(axis=0), nulls.pairs_of)
    rows: list[Sequence[object]] = []
    for asked_prompt in group.prompts:
        prompt, step = asked_prompt.prompt, asked_prompt.step
        texts = [filled(lm, prompt, word) for word in words]
        answers = _answers(lm, words, prompt, name)
        points = _held(lm, texts, hook)
        moved = MovedTexts(lm, texts, hook)
        usual = moved.usual()[:, answers]
        for turn in range(n):  # 0: taken to the centre
            edit = "turn" if turn else "centre"
            own = plane.turned(points, 2 * np.pi * turn / n) if turn else plane.removed(points)
            for control in range(-1, nulls.controls):
                kind = "circle" if control < 0 else "random"
                deltas = own
                if control >= 0:
                    deltas = _as_long(own, seed, name, hook, prompt, str(turn), str(control))
                got = moved.moved(deltas)[:, answers]
                for i in range(n):
                    right, aim = (i + step) % n, (i + step + turn) % n
                    change = got[i] - usual[i]
                    others = np.delete(change, right).mean()
                    log_odds = change[aim] - change[right] if turn else change[right] - others
                    likeliest = int(got[i].argmax())
                    rows.append(
                        (
                            name, hook, prompt, i, edit, kind, max(control, 0), turn,
                            float(likeliest == right),
                            float(likeliest == aim) if turn else None,
                            float(log_odds),
                        )
                    )  # fmt: skip
        rows += [
            (name, hook, prompt, i, "none", "circle", 0, 0,
             float(int(usual[i].argmax()) == (i + step) % n), None, 0.0)
            for i in range(n)
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=TURNS, orient="row")


def shift_texts(
    lm: LanguageModel,
    read: Read,
    asked: Points,
    nulls: Nulls,
    name: str,
    hook: str,
    files: Files,
    seed: int,
) -> pl.DataFrame:
    """Move the last token of texts along their line, and see which of two tokens comes next.

    Returns:
        The columns of `SHIFTS`: ``log_odds`` of the token of high numbers against that of low ones,
        and its change by the move.
    """
    line = asked.lines[name]
    cause, key = line.cause, f"geometry.points.lines.{name}.cause"
    assert cause is not None
    stored = read.line(name, [hook])
    fitted = fit_line(stored.points[hook], stored.values, "ridge")
    along = (stored.points[hook] - fitted.mean) @ fitted.direction
    texts = texts_of(line, name, files.get(name), seed)
    chosen = numpy_generator(seed, "geometry", name, "moved").permutation(len(texts))
    chosen = np.sort(chosen[: cause.texts])
    rows: list[Sequence[object]] = []
    for prompt in cause.prompts:
        spoken = [str(texts.prompts[i]) for i in chosen]  # text: `texts_of` refuses messages
        pair = [
            single_token(lm, prompt.replace(SLOT, spoken[0]), text, f"{key}.{end}")
            for end, text in (("high", cause.high), ("low", cause.low))
        ]
        moved = MovedTexts(lm, [filled(lm, prompt, text) for text in spoken], hook)
        usual = _odds(moved.usual(), pair)
        for step in (0.0, *cause.steps):
            own = np.tile(step * along.std() * fitted.direction, (len(spoken), 1))
            for control in range(-1, nulls.controls if step else 0):
                kind = "line" if control < 0 else "random"
                deltas = own
                if control >= 0:  # of each text's own, as texts are the units of intervals
                    deltas = _as_long(own, seed, name, hook, prompt, f"{step:g}", str(control))
                values = _odds(moved.moved(deltas), pair) if step else usual
                rows += [
                    (name, hook, prompt, int(chosen[i]), kind, max(control, 0), step,
                     float(values[i]), float(values[i] - usual[i]))
                    for i in range(len(chosen))
                ]  # fmt: skip
    return pl.DataFrame(rows, schema=SHIFTS, orient="row")


class MovedTexts:
    """Texts in whose slots something is added, and what comes after them.

    What lies below the hook is run once for all that is added.

    Args:
        lm: the model.
        texts: in whose slots it is added.
        hook: where.
    """

    def __init__(self, lm: LanguageModel, texts: Sequence[Filled], hook: str) -> None:
        self._lm, self._hook = lm, hook
        parts = [
            texts[first : first + ROWS_AT_ONCE] for first in range(0, len(texts), ROWS_AT_ONCE)
        ]
        layer = parse_hook(hook).layer
        self._passes = [
            _Pass(part, *clean_and_again(lm, padded(lm, [each.tokens for each in part]), layer))
            for part in parts
        ]

    def usual(self) -> Float64[np.ndarray, "texts d_vocab"]:
        """Log-probabilities of the next token with nothing added."""
        return np.concatenate([self._log_probs(each, each.clean) for each in self._passes])

    @torch.no_grad()
    def moved(
        self, deltas: Float64[np.ndarray, "texts d_model"]
    ) -> Float64[np.ndarray, "texts d_vocab"]:
        """Log-probabilities of the next token with each text's own vector added at its slot."""
        logs, first = [], 0
        for each in self._passes:
            own = torch.from_numpy(deltas[first : first + len(each.texts)]).float()
            first += len(each.texts)
            rows = torch.arange(len(own), device=self._lm.device)
            slots = torch.tensor([text.place for text in each.texts], device=self._lm.device)
            add = partial(_added, rows=rows, slots=slots, deltas=own.to(self._lm.device))
            with attach(self._lm, [(self._hook, add)]):
                logs.append(self._log_probs(each, each.again()))
        return np.concatenate(logs)

    def _log_probs(
        self, of: _Pass, states: Float[Tensor, "rows pos d_model"]
    ) -> Float64[np.ndarray, "rows d_vocab"]:
        lengths = [len(text.tokens) for text in of.texts]
        return logits_after(self._lm, states, lengths).log_softmax(-1).cpu().double().numpy()


class _Pass(NamedTuple):
    """Texts that are run together, their final states, and what gives them once more."""

    texts: Sequence[Filled]
    clean: Float[Tensor, "rows pos d_model"]
    again: Callable[[], Float[Tensor, "rows pos d_model"]]


def _added(
    resid: Float[Tensor, "rows pos d_model"], rows: Tensor, slots: Tensor, deltas: Tensor
) -> Tensor:
    edited = resid.clone()
    edited[rows, slots] += deltas.to(resid.dtype)
    return edited


def summarise(turns: pl.DataFrame, shifts: pl.DataFrame, nulls: Nulls, seed: int) -> pl.DataFrame:
    """Means over words, or texts, of every edit; controls of a word or text are one unit.

    Returns:
        The columns of `CAUSES`; ``step`` is null for circles, whose turns are all taken together,
        and of lines how far texts were moved.
    """
    rows: list[tuple[object, ...]] = []
    for key, own in turns.group_by(["group", "hook", "edit", "kind"], maintain_order=True):
        resampling = _resampling(own["word"], nulls, seed)
        for measure, bounds in (("right", SHARE), ("moved", SHARE), ("log_odds", None)):
            values = own[measure].to_numpy().astype(float)
            if not np.isnan(values).all():
                mean = cells(resampling.mean(values, bounds))
                rows.append((*key, None, measure, *mean, own["word"].n_unique()))
    for key, own in shifts.group_by(["line", "hook", "kind", "step"], maintain_order=True):
        line, hook, kind, step = key
        edit = "shift" if step else "none"
        resampling = _resampling(own["text"], nulls, seed)
        for measure in ("log_odds", "change"):
            mean = cells(resampling.mean(own[measure].to_numpy()))
            rows.append((line, hook, edit, kind, step, measure, *mean, own["text"].n_unique()))
    return pl.DataFrame(rows, schema=CAUSES, orient="row")


def _resampling(units: pl.Series, nulls: Nulls, seed: int) -> Resampling:
    generator = numpy_generator(seed, "geometry", "intervals")
    return Resampling(units.to_numpy().astype(np.int64), nulls.draws, nulls.level, generator)


@torch.no_grad()
def _held(lm: LanguageModel, texts: Sequence[Filled], hook: str) -> Float64[np.ndarray, "n d"]:
    """Activations at the slots of texts."""
    points = []
    for each in texts:
        seen = capture(lm, torch.tensor([each.tokens], device=lm.device), [hook])[hook]
        points.append(seen[0, each.place].double().cpu().numpy())
    return np.stack(points)


def _odds(logs: Float64[np.ndarray, "n d_vocab"], pair: Sequence[int]) -> Float64[np.ndarray, " n"]:
    """Log-odds of the first of two tokens against the second."""
    return np.asarray(logs[:, pair[0]] - logs[:, pair[1]])


def _as_long(
    deltas: Float64[np.ndarray, "n d"], seed: int, *purpose: str
) -> Float64[np.ndarray, "n d"]:
    """Random directions as long as those given."""
    generator = numpy_generator(seed, "geometry", "control", *purpose)
    random = generator.standard_normal(deltas.shape)
    lengths = np.linalg.norm(deltas, axis=1) / np.linalg.norm(random, axis=1)
    return random * lengths[:, None]


def _answers(lm: LanguageModel, words: Sequence[str], prompt: str, group: str) -> list[int]:
    """The tokens of words behind a prompt.

    Raises:
        SaeflowError: a word is several tokens, or two are one.
    """
    key, space = f"geometry.points.groups.{group}.prompts", "" if prompt[-1:].isspace() else " "
    before = prompt.replace(SLOT, words[0])
    answers = [single_token(lm, before, space + word, key) for word in words]
    if len(set(answers)) < len(answers):
        raise SaeflowError(f"{key}: two words are one token of the model; leave one out")
    return answers


def single_token(lm: LanguageModel, before: str, text: str, key: str) -> int:
    """The one token that a text is behind another, or else as it stands alone: some tokenizers open
    a text with a space of their own, which no token behind another has.

    Raises:
        SaeflowError: it is several, or unknown to the model.
    """
    until, whole = lm.tokenize(before), lm.tokenize(before + text)
    behind = whole[len(until) :] if whole[: len(until)] == until else []
    alone = lm.tokenize(text, bos=False)
    for tokens in (behind, alone):
        if len(tokens) == 1 and tokens[0] != lm.tokenizer.unk_token_id:
            return tokens[0]
    pieces = ", ".join(repr(lm.tokenizer.decode([token])) for token in alone) or "nothing"
    raise SaeflowError(
        f"{key}: '{text}' is no single token of the model but {pieces}, so it cannot be told "
        "by the next token; name words that are one token"
    )
