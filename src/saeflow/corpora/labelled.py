"""Texts with labels or numbers: read from files or the config, cleared of repeats, split by group.

Contrast examples, probing data sets and pairs of tasks all are this. What is wrong with a file is
raised as one sentence; what makes a set of little use, such as a single class, is told by
`LabelledSet.shortage`, so that whoever reads many sets may skip one and say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import TypeAdapter, ValidationError

from saeflow.config.sections.labelled import LabelledText, TextSource
from saeflow.config.sections.prompts import Message, Prompt
from saeflow.corpora.records import Wanted, records_of
from saeflow.corpora.tokens import without_bos
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

LEAST_ROWS = 8
"""Of each class, below which a set tells nothing."""
_SHOWN_CLASSES = 8
_PROMPTS: TypeAdapter[str | list[Message]] = TypeAdapter(Prompt)


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Texts with their classes or numbers.

    Attributes:
        name: of the set.
        prompts: text, or messages for a chat template.
        classes: names of the classes, in order; empty where rows have numbers.
        targets: the place of each row's class in `classes`, or its number.
        groups: what each row belongs to, counted from 0; rows of one group stay together.
        blank: rows of the file that were left out since they have no text or no label.
        other: rows that were left out since no class is named for what their label says.
    """

    name: str
    prompts: list[str | list[Message]]
    classes: list[str]
    targets: Float64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]
    blank: int = 0
    other: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, rows: Sequence[int] | Int64[np.ndarray, " m"]) -> LabelledSet:
        """Some of the rows, in the order given."""
        places = np.asarray(rows, np.int64)
        prompts = [self.prompts[place] for place in places]
        targets, groups = self.targets[places], self.groups[places]
        return LabelledSet(
            self.name, prompts, self.classes, targets, groups, self.blank, self.other
        )

    def shortage(self, least: int = LEAST_ROWS) -> str | None:
        """What keeps the set from telling anything, as a sentence; None where nothing does.

        Args:
            least: rows that each class must have, or a set with numbers twice.
        """
        if not self.classes:
            if len(self) < 2 * least:
                return f"has {len(self)} rows, and {2 * least} are the least; add some"
            return "has one number in all its rows" if np.ptp(self.targets) == 0 else None
        counts = np.bincount(self.targets.astype(int), minlength=len(self.classes))
        if len(self.classes) < 2 or (counts > 0).sum() < 2:
            return (
                f"has one class only ('{self.classes[int(counts.argmax())]}', {len(self)} rows); "
                "add rows of another"
            )
        fewest = int(counts.argmin())
        if counts[fewest] < least:
            return (
                f"has {len(self)} rows, {counts[fewest]} of them of the class "
                f"'{self.classes[fewest]}', and {least} of each are the least; add some"
            )
        return None


class Split(NamedTuple):
    """Rows on either side of a split, in rising order; no group is on both."""

    train: Int64[np.ndarray, " n_train"]
    test: Int64[np.ndarray, " n_test"]


class Repeats(NamedTuple):
    """What is left of rows that stand several times.

    Attributes:
        kept: the first of each text, in rising order.
        repeated: rows that were left out since an earlier one says the same.
        contradictory: rows that were left out since the same text has several labels.
    """

    kept: Int64[np.ndarray, " m"]
    repeated: int
    contradictory: int


def read_labelled(
    source: TextSource, name: str, file: Path | None = None, like: LabelledSet | None = None
) -> LabelledSet:
    """Read a set of texts with labels.

    Args:
        source: what the config says of it.
        name: of the set, for messages.
        file: where the file lies that `source` names; None where its texts stand in the config.
        like: the set whose classes it is coded by, in this order.

    Raises:
        SaeflowError: the file is absent, of another kind, or lacks a column; a label is no class of
            `like`, or a value no number.
    """
    if source.examples is not None:
        rows = [_example(each) for each in source.examples]
        of_numbers = source.examples[0].value is not None
    else:
        assert file is not None, "a set that is read from a file"
        rows = list(_rows(source, name, file))
        of_numbers = source.label_column is None
    where = f"{name}: {file}" if file else name
    whole = [row for row in rows if row.prompt is not None and row.target is not None]
    blank, other = len(rows) - len(whole), 0
    if of_numbers:
        classes: list[str] = []
        targets = [_number(row.target, where, source.value or "value") for row in whole]
    else:
        labels = [_label(row.target) for row in whole]
        if source.classes is not None:
            kept = [place for place, label in enumerate(labels) if label in source.classes]
            other, whole = len(whole) - len(kept), [whole[place] for place in kept]
            labels = [source.classes[labels[place]] for place in kept]
            if not kept:
                raise SaeflowError(
                    f"{where}: no row has one of the labels {', '.join(source.classes)}; correct "
                    "classes"
                )
        classes = _classes(labels, source, where, like)
        place_of = {label: place for place, label in enumerate(classes)}
        targets = [float(place_of[label]) for label in labels]
    if not whole:
        raise SaeflowError(f"{where}: has no row with a text and a label; name another file")
    return LabelledSet(
        name,
        [row.prompt for row in whole if row.prompt is not None],
        classes,
        np.array(targets, np.float64),
        _groups(whole),
        blank,
        other,
    )


class _Row(NamedTuple):
    prompt: str | list[Message] | None
    target: Any
    group: Any


def _example(example: LabelledText) -> _Row:
    label = example.label if example.value is None else example.value
    return _Row(example.messages or example.text, label, example.group)


def _rows(source: TextSource, name: str, file: Path) -> Iterator[_Row]:
    """Fields of the records of a file; an empty one is none."""
    target = source.label_column or source.value or ""
    wanted = {"text": source.text, "label" if source.label_column else "value": target}
    if source.group:
        wanted["group"] = source.group

    def columns(fields: Mapping[str, Any], where: str) -> list[str]:
        for key, column in wanted.items():
            if column not in fields:
                names = ", ".join(map(str, fields)) or "no names"
                raise SaeflowError(
                    f"{name}: {where} has no column '{column}' but {names}; set {key}"
                )
        return list(wanted.values())

    try:
        for number, (fields, where) in enumerate(records_of(file, Wanted(columns), name), start=1):
            columns(fields if isinstance(fields, Mapping) else {}, where)
            label, group = (fields.get(key) for key in (target, source.group))
            where = f"{where}, row {number}" if where == str(file) else where
            prompt = _prompt(fields[source.text], f"{name}: {where}")
            yield _Row(prompt, *(None if value == "" else value for value in (label, group)))
    except FileNotFoundError:
        raise SaeflowError(
            f"{name}: '{file}' does not exist; correct the path, or make the file"
        ) from None


def _prompt(value: Any, where: str) -> str | list[Message] | None:
    """Text or messages; None where there is nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        return value
    try:
        return _PROMPTS.validate_python(value)
    except ValidationError:
        raise SaeflowError(
            f"{where}: is neither text nor messages, a list of role and content; correct it"
        ) from None


def _label(value: Any) -> str:
    """A label as text; 1 and 1.0 are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any, where: str, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise SaeflowError(f"{where}: '{value}' in the column '{column}' is no number; correct it")
    return number


def _in_order(labels: set[str]) -> list[str]:
    """By number where all are numbers, else by letters."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)


def _classes(
    labels: Sequence[str], source: TextSource, where: str, like: LabelledSet | None
) -> list[str]:
    present = set(labels)
    if like is None:
        named = list(dict.fromkeys(source.classes.values())) if source.classes else []
        return [name for name in named if name in present] or _in_order(present)
    if foreign := _in_order(present - set(like.classes)):
        raise SaeflowError(
            f"{where}: has the labels {', '.join(foreign[:_SHOWN_CLASSES])}, and {like.name} the "
            f"classes {', '.join(like.classes[:_SHOWN_CLASSES])}; say in classes which is which"
        )
    return like.classes


def _groups(rows: Sequence[_Row]) -> Int64[np.ndarray, " n"]:
    """Numbers of groups; a row without a name for its own is one for itself."""
    numbers: dict[Hashable, int] = {}
    names = (
        ("own", place) if row.group is None else ("named", str(row.group))
        for place, row in enumerate(rows)
    )
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def without_repeats(keys: Sequence[Hashable], targets: Float64[np.ndarray, " n"]) -> Repeats:
    """The first of every text. Were it left in, what was learnt in training would be tested.

    Args:
        keys: of each row, what makes two rows one: its text, or its tokens as they are cut.
        targets: of each row; where equal texts have several, none of them is kept.
    """
    seen: dict[Hashable, set[float]] = {}
    for key, target in zip(keys, targets, strict=True):
        seen.setdefault(key, set()).add(float(target))
    contradictory = sum(len(seen[key]) > 1 for key in keys)
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    kept = sorted(place for key, place in first.items() if len(seen[key]) == 1)
    return Repeats(np.array(kept, np.int64), len(keys) - contradictory - len(kept), contradictory)


def split_by_group(texts: LabelledSet, share: float, seed: int, *purpose: str | int) -> Split:
    """Set rows apart for testing, as many of each class as of another, group by group.

    Args:
        texts: to split.
        share: of the rows, about, that are for testing; larger groups make it rougher.
        seed: of the study.
        purpose: what the draw is for, such as a seed of several.

    Raises:
        SaeflowError: there is one group only.
    """
    strata = _strata(texts)
    test: set[int] = set()
    for stratum, groups in strata.items():
        order = numpy_generator(seed, "split", texts.name, stratum, *purpose).permutation(
            list(groups)
        )
        wanted, taken = share * sum(groups.values()), 0.0
        for group in order[:-1] if len(order) > 1 else []:
            if taken and taken + groups[int(group)] / 2 > wanted:
                break
            test.add(int(group))
            taken += groups[int(group)]
    held_out = np.isin(texts.groups, list(test))
    if not held_out.any():
        raise SaeflowError(
            f"{texts.name}: all rows are of one group, which is never on both sides of a split; "
            "name another column in group"
        )
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))


def folds_by_group(
    texts: LabelledSet, folds: int, seed: int, *purpose: str | int
) -> Int64[np.ndarray, " n"]:
    """The fold of each row, of as many of each class; the rows of a group are in one.

    Args:
        texts: to divide.
        folds: how many.
        seed: of the study.
        purpose: what the draw is for.
    """
    fold_of: dict[int, int] = {}
    sizes = np.zeros(folds)
    for stratum, groups in _strata(texts).items():
        random = numpy_generator(seed, "folds", texts.name, stratum, *purpose)
        own = np.zeros(folds)
        for group in random.permutation(list(groups)):
            fold = int(np.lexsort((sizes, own))[0])
            fold_of[int(group)] = fold
            own[fold] += groups[int(group)]
            sizes[fold] += groups[int(group)]
    return np.array([fold_of[int(group)] for group in texts.groups], np.int64)


def _strata(texts: LabelledSet) -> dict[int, Counter[int]]:
    """By class, how many rows each group has whose rows are mostly of that class."""
    classes = texts.targets.astype(int) if texts.classes else np.zeros(len(texts), int)
    of_group: dict[int, Counter[int]] = {}
    for group, label in zip(texts.groups.tolist(), classes.tolist(), strict=True):
        of_group.setdefault(group, Counter())[label] += 1
    strata: dict[int, Counter[int]] = {}
    for group, labels in of_group.items():
        most = max(sorted(labels), key=lambda label: labels[label])
        strata.setdefault(most, Counter())[group] = labels.total()
    return strata


def truncated(
    tokens: Sequence[int], context: int, bos_id: int, keep: Literal["end", "beginning"] = "end"
) -> list[int]:
    """A text's tokens behind BOS, without the first or the last where there are more than the
    context holds.

    Args:
        tokens: of the text, with BOS or without.
        context: tokens that are kept, BOS included.
        bos_id: the model's token that opens a text.
        keep: which are kept; what is asked of a text is mostly read at its end.
    """
    kept = context - 1
    body = without_bos(tokens, bos_id)
    if keep == "beginning":
        return [bos_id, *body[:kept]]
    return [bos_id, *(body[-kept:] if kept else [])]
