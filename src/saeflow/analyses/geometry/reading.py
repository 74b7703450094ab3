"""What a model holds of words in texts, and of texts with numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from saeflow.analyses.geometry.line import blocks_of, folds_of
from saeflow.analyses.geometry.settings import SLOT
from saeflow.artifacts import sealed
from saeflow.corpora.labelled import read_labelled, without_repeats
from saeflow.errors import SaeflowError
from saeflow.models.reading import read_at
from saeflow.models.running import capture, not_finite
from saeflow.seals import stamp
from saeflow.seeds import numpy_generator
from saeflow.tensors import read_tensors

if TYPE_CHECKING:
    from saeflow.analyses.geometry.settings import NumberLine, Points, WordGroup
    from saeflow.config.sections.prompts import Message
    from saeflow.corpora.labelled import LabelledSet
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

Files = Mapping[str, Path]
SAEs = Mapping[str, "tuple[str, SAE]"]
"""SAEs by name, each with the hook that it reads."""


class Filled(NamedTuple):
    """A text with something in its slot.

    Attributes:
        tokens: BOS among them.
        place: of the last token of what fills the slot.
    """

    tokens: list[int]
    place: int


class Line(NamedTuple):
    """Texts with numbers.

    Attributes:
        points: activations by hook, float64.
        values: the numbers.
        confounds: how many tokens a text has, and the logarithm of the last token's id, which
            rises as a token grows rare.
        groups: what each text belongs to, counted from 0.
    """

    points: dict[str, Float64[np.ndarray, "n d"]]
    values: Float64[np.ndarray, " n"]
    confounds: Float64[np.ndarray, "n 2"]
    groups: Int64[np.ndarray, " n"]


def filled(lm: LanguageModel, template: str, text: str) -> Filled:
    """Tokens of a template with a text in its slot.

    Raises:
        SaeflowError: the text's last token reaches into what follows it.
    """
    before, _, after = template.partition(SLOT)
    tokens = lm.tokenize(before + text + after)
    until = lm.tokenize(before + text)
    if tokens[: len(until)] != until:
        raise SaeflowError(
            f"geometry: in '{before + text + after}' a token of the model spans the end of "
            f"'{text}'; put a blank or another sign behind {SLOT}"
        )
    if len(tokens) > lm.context:
        raise SaeflowError(
            f"geometry: '{template}' with '{text[:40]}' in it has {len(tokens)} tokens, and the "
            f"model reads {lm.context}; shorten it"
        )
    return Filled(tokens, len(until) - 1)


def read_words(
    lm: LanguageModel, group: WordGroup, hooks: Sequence[str]
) -> dict[str, Float[Tensor, "templates words d_model"]]:
    """Activations of every word's last token in every template, by hook, float32.

    Raises:
        SaeflowError: as `filled`; two words are the same to the model, or it gives NaN.
    """
    read: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for template in group.texts:
        word_of: dict[tuple[int, ...], str] = {}
        for word in group.members:
            tokens, place = filled(lm, template, word)
            if (other := word_of.setdefault(tuple(tokens), word)) != word:
                raise SaeflowError(
                    f"geometry.points.groups: '{other}' and '{word}' are the same tokens to the "
                    "model, which may know neither; leave one out, or name other words"
                )
            seen = capture(lm, torch.tensor([tokens], device=lm.device), hooks)
            for hook in hooks:
                read[hook].append(seen[hook][0, place].float().cpu())
                if not read[hook][-1].isfinite().all():
                    raise not_finite(lm, f"geometry.points.groups: the activation at {hook}")
    shape = (len(group.texts), len(group.members), -1)
    return {hook: torch.stack(rows).view(shape) for hook, rows in read.items()}


def texts_of(line: NumberLine, name: str, file: Path | None, seed: int) -> LabelledSet:
    """The texts of a line, each once: all, or as many as are read, drawn at random, in the file's
    order.

    Raises:
        SaeflowError: there are fewer than 20, all have one number, too few blocks can be held out,
            or messages are to stand in a prompt.
    """
    key = f"geometry.points.lines.{name}"
    texts = _different(read_labelled(line.texts, name, file), key)
    if len(texts) < 20 or np.ptp(texts.targets) == 0:
        raise SaeflowError(
            f"{key}: {len(texts)} different texts with {len(np.unique(texts.targets))} different "
            "numbers; a line needs 20 texts, and numbers that differ"
        )
    if line.cause and not all(isinstance(prompt, str) for prompt in texts.prompts):
        raise SaeflowError(
            f"{key}.cause: there are messages among the texts, which cannot stand in a prompt; "
            "give text, or leave out cause"
        )
    texts = _at_most(texts, line.most, seed, name)
    blocks = blocks_of(texts.targets, line.block, name)
    for block, (_, fitted) in enumerate(folds_of(blocks, texts.groups)):
        if np.unique(texts.targets[fitted]).size < 2:
            raise SaeflowError(
                f"{key}.texts.group: where block {block} of numbers is held out with all texts of "
                f"its groups, {int(fitted.sum())} texts are left to fit a line to; name a column "
                "of smaller groups"
            )
    return texts


def others_of(
    line: NumberLine, name: str, other: str, file: Path | None, own: LabelledSet, seed: int
) -> LabelledSet:
    """Texts that are read off along a line, each once, and none that the line is fitted to.

    Args:
        line: which.
        name: of it.
        other: of the texts.
        file: where they lie.
        own: the texts of the line.
        seed: of the study.

    Raises:
        SaeflowError: none is left, or all have one number.
    """
    key = f"geometry.points.lines.{name}.read_off.{other}"
    fitted = {_text(prompt) for prompt in own.prompts}
    texts = _different(read_labelled(line.read_off[other], other, file), key, fitted)
    if len(texts) == 0 or np.ptp(texts.targets) == 0:
        raise SaeflowError(
            f"{key}: {len(texts)} texts that the line is not fitted to, with "
            f"{len(np.unique(texts.targets))} different numbers; give others, whose numbers differ"
        )
    return _at_most(texts, line.most, seed, f"{name}/{other}")


def _different(texts: LabelledSet, key: str, besides: Collection[str] = ()) -> LabelledSet:
    """Each text once, and none of some others: one that stands in two blocks, or is read off the
    line that it was fitted to, tells what was learnt by heart."""
    keys = [_text(prompt) for prompt in texts.prompts]
    repeats = without_repeats(keys, texts.targets)
    kept = [place for place in repeats.kept.tolist() if keys[place] not in besides]
    if len(kept) < len(texts) + texts.blank:
        print(
            f"{key}: of {len(texts) + texts.blank} texts {texts.blank} were left out since they "
            f"have no text or no number, {repeats.repeated} since an earlier one is the same, "
            f"{repeats.contradictory} since the same text has several numbers, and "
            f"{len(repeats.kept) - len(kept)} since the line is fitted to them",
            flush=True,
        )
    return texts.part(kept)


def _text(prompt: str | list[Message]) -> str:
    """What makes two texts one."""
    return prompt if isinstance(prompt, str) else repr(prompt)


def _at_most(texts: LabelledSet, most: int, seed: int, name: str) -> LabelledSet:
    """As many texts, drawn at random where there are more."""
    if len(texts) <= most:
        return texts
    generator = numpy_generator(seed, "geometry", name)
    return texts.part(np.sort(generator.permutation(len(texts))[:most]))


@torch.no_grad()
def read_line(
    lm: LanguageModel,
    texts: LabelledSet,
    position: str,
    hooks: Sequence[str],
    saes: SAEs,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Activations of texts at a position, by hook, their latents, by SAE, and the confounds, as
    tensors of one file.

    Args:
        lm: the model.
        texts: with numbers.
        position: where a text is read.
        hooks: where the model is read.
        saes: whose latents are kept; of several tokens their mean.
        progress: called with (texts read, texts).
    """
    read: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    confounds = torch.empty(len(texts), 2, dtype=torch.float64)
    latents: dict[str, list[sparse.csr_array]] = {name: [] for name in saes}
    where = f"geometry.points.lines: {texts.name}"
    for number, each in enumerate(read_at(lm, texts.prompts, position, hooks, where)):
        for hook in hooks:
            read[hook].append(each.activations[hook])
        for name, (hook, sae) in saes.items():
            mean = sae.encode(each.each[hook]).mean(0, keepdim=True)
            latents[name].append(sparse.csr_array(mean.float().cpu().numpy()))
        confounds[number] = torch.tensor([len(each.tokens), np.log1p(each.tokens[-1])])
        if progress:
            progress(number + 1, len(texts))
    values = torch.from_numpy(texts.targets.copy())
    groups = torch.from_numpy(texts.groups.copy())
    tensors = {hook: torch.stack(rows) for hook, rows in read.items()}
    tensors |= {"values": values, "confounds": confounds, "groups": groups}
    for name, rows in latents.items():
        tensors |= _sparse_tensors(f"latents/{name}", sparse.csr_array(sparse.vstack(rows)))
    return tensors


def _sparse_tensors(name: str, latents: sparse.csr_array) -> dict[str, Tensor]:
    """Latents of texts as compressed sparse rows."""
    parts = {
        "data": latents.data.astype(np.float32),
        "indices": latents.indices.astype(np.int32),
        "indptr": latents.indptr.astype(np.int64),
        "shape": np.array(latents.shape, np.int64),
    }
    return {f"{name}/{key}": torch.from_numpy(part) for key, part in parts.items()}


def read_all(
    lm: LanguageModel,
    asked: Points,
    hooks: Sequence[str],
    files: Files,
    seed: int,
    saes: SAEs = MappingProxyType({}),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Tensor]:
    """Everything that is read of a model, by names such as ``groups/weekday/<hook>``.

    Args:
        lm: the model.
        asked: groups and lines.
        hooks: where it is read.
        files: where the files of lines lie, by ``<line>`` and ``<line>/<other texts>``.
        seed: of the study.
        saes: whose latents are kept of the texts of lines; on the model's device.
        progress: called with (texts read, texts) of each line.
    """
    texts: dict[str, tuple[NumberLine, LabelledSet]] = {}  # what is wrong with any is told first
    for name, line in asked.lines.items():
        own = texts_of(line, name, files.get(name), seed)
        texts[name] = line, own
        for other in line.read_off:
            key = f"{name}/{other}"
            texts[key] = line, others_of(line, name, other, files.get(key), own, seed)
    tensors: dict[str, Tensor] = {}
    for name, group in asked.groups.items():
        for hook, points in read_words(lm, group, hooks).items():
            tensors[f"groups/{name}/{hook}"] = points
    for name, (line, each) in texts.items():
        for key, tensor in read_line(lm, each, line.position, hooks, saes, progress).items():
            tensors[f"lines/{name}/{key}"] = tensor
    return tensors


def save_activations(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what was read into one file."""
    with sealed(path) as temporary:
        held = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata=stamp())


class Read:
    """What `save_activations` wrote.

    Args:
        path: of the file.

    Raises:
        SaeflowError: it is absent or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._tensors = path, read_tensors(path)

    def words(self, group: str, hook: str) -> Float64[np.ndarray, "templates words d"]:
        """Activations of a group's words in its templates."""
        return self._array(f"groups/{group}/{hook}")

    def line(self, line: str, hooks: Sequence[str], other: str | None = None) -> Line:
        """Texts of a line, or others that are read off along it."""
        folder = f"lines/{line}/{other}" if other else f"lines/{line}"
        points = {hook: self._array(f"{folder}/{hook}") for hook in hooks}
        values = self._array(f"{folder}/values")
        groups = self._tensor(f"{folder}/groups").numpy()
        return Line(points, values, self._array(f"{folder}/confounds"), groups)

    def latents(self, line: str, sae: str, other: str | None = None) -> sparse.csr_array:
        """Latents of the texts of a line, or of others that are read off along it."""
        folder = f"lines/{line}/{other}" if other else f"lines/{line}"
        keys = ("data", "indices", "indptr", "shape")
        data, indices, indptr, shape = (
            self._tensor(f"{folder}/latents/{sae}/{key}").numpy() for key in keys
        )
        return sparse.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))

    def _array(self, name: str) -> Any:
        return self._tensor(name).double().numpy()

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise SaeflowError(f"{self._path}: lacks '{name}'; make it again")
        return self._tensors[name]
