"""Edits of the residual stream: what is added, taken away or set, in which rows and at which
positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach, check_hook, editing

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel


class Edit(NamedTuple):
    """One edit per row of a batch; rows are independent of each other."""

    kind: Literal["add", "ablate", "clamp"]
    """``add``: ``h + s v``. ``ablate``: ``h - s (h·v) v``, which projects ``v`` out where ``s`` is
    1. ``clamp``: sets ``h·v`` to ``s``."""
    vectors: Float[Tensor, "rows d_model"]
    """Unit norm, or zero for a row that is left alone."""
    scales: Float[Tensor, " rows"]
    """The ``s`` of every row, in units of the residual stream."""
    positions: Literal["all", "prompt", "generated"] | int = "all"
    """Which tokens are edited; a number n means from position n on."""
    include_bos: bool = True
    """Whether position 0 is one of them."""

    def repeat(self, repeats: int) -> Edit:
        """The same edit with every row ``repeats`` times in a row."""
        return self._replace(
            vectors=self.vectors.repeat_interleave(repeats, 0),
            scales=self.scales.repeat_interleave(repeats),
        )


def apply(
    edit: Edit, resid: Float[Tensor, "rows pos d_model"], offset: int, prompt_length: int
) -> Float[Tensor, "rows pos d_model"] | None:
    """Edit a stretch of the residual stream; the stream itself is left as it is.

    Args:
        edit: with as many rows as ``resid``.
        resid: positions ``offset``, ``offset + 1``, … of every row.
        offset: position of the first of them in the whole text.
        prompt_length: tokens of the prompt, BOS included.

    Returns:
        A new tensor, or None where no position of the stretch is to be edited.
    """
    first, last = _range(edit, prompt_length)
    length = resid.shape[1]
    start, stop = min(max(first - offset, 0), length), min(max(last - offset, 0), length)
    if start >= stop:
        return None
    edited = _EDITS[edit.kind](resid[:, start:stop], edit.vectors, edit.scales)
    if stop - start == length:
        return edited
    return torch.cat([resid[:, :start], edited, resid[:, stop:]], dim=1)


def write_sites(lm: LanguageModel) -> list[str]:
    """The hooks at which the residual stream is written to, each once: what enters the first layer,
    and what attention and MLP of every layer add. The stream is their sum.

    In a family that has no such sites (of those that TransformerLens alone knows) it is the stream
    itself before the first layer, in the middle of layers where it can be had, and behind each.
    """
    added = ("hook_attn_out", "hook_mlp_out")
    places = [lm.family.sites.get(site) for site in added]
    whole = all(place is not None and place.editable for place in places)
    sites = added if whole else ("hook_resid_mid", "hook_resid_post")
    return ["blocks.0.hook_resid_pre"] + [
        f"blocks.{layer}.{site}"
        for layer in range(lm.n_layers)
        for site in sites
        if site in lm.family.sites
    ]


@contextmanager
def ablated(lm: LanguageModel, vector: Float[Tensor, " d_model"]) -> Iterator[None]:
    """Within the block, nothing is written to the residual stream along a vector, of prompts and
    of what is generated alike: at every write site it is projected out once.

    Args:
        lm: the model.
        vector: unit norm, or zero, which ablates nothing.

    Raises:
        SaeflowError: it has another width than the model, or a number that is not finite.
    """
    check_vectors(vector[None], lm.d_model, "ablation")
    own = vector.to(lm.device, torch.float32)

    def project_out(written: Float[Tensor, "batch pos d_model"]) -> Tensor:
        share = (written.float() @ own)[..., None]
        return written - (share * own).to(written.dtype)

    functions = [pair for site in write_sites(lm) for pair in editing(site, project_out)]
    with attach(lm, functions):
        yield


@contextmanager
def added(
    lm: LanguageModel, hook: str, vector: Float[Tensor, " d_model"], scale: float
) -> Iterator[None]:
    """Within the block, a multiple of a vector is added at one hook, once per token, of prompts and
    of what is generated alike.

    Args:
        lm: the model.
        hook: a ``hook_resid_post``.
        vector: unit norm.
        scale: in units of the residual stream.

    Raises:
        SaeflowError: the hook is another, or does not exist; or as for `ablated`.
    """
    if check_hook(lm, hook).site != "hook_resid_post":
        raise SaeflowError(f"addition: '{hook}' cannot be steered; name a hook_resid_post")
    check_vectors(vector[None], lm.d_model, "addition")
    addition = (scale * vector.double()).to(lm.device, lm.dtype)
    with attach(lm, [(hook, partial(torch.add, other=addition))]):
        yield


def check_vectors(vectors: Float[Tensor, "rows d_model"], d_model: int, where: str) -> None:
    """Refuse vectors that cannot steer.

    Raises:
        SaeflowError: another width than the model's, or a number that is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != d_model:
        raise SaeflowError(
            f"{where}: the vectors have shape {tuple(vectors.shape)} and the model is {d_model} "
            f"wide; give vectors of shape (n, {d_model})"
        )
    if not torch.isfinite(vectors).all():
        row = int((~torch.isfinite(vectors).all(1)).nonzero()[0])
        raise SaeflowError(f"{where}: vector {row} holds NaN or infinity; make the vectors anew")


def _range(edit: Edit, prompt_length: int) -> tuple[int, float]:
    """First edited position and the one after the last."""
    first, last = 0, float("inf")
    if edit.positions == "prompt":
        last = prompt_length
    elif edit.positions == "generated":
        first = prompt_length
    elif edit.positions != "all":
        first = edit.positions
    return (first if edit.include_bos else max(first, 1)), last


def _add(
    resid: Float[Tensor, "rows pos d_model"],
    vectors: Float[Tensor, "rows d_model"],
    scales: Float[Tensor, " rows"],
) -> Float[Tensor, "rows pos d_model"]:
    return resid + (scales[:, None] * vectors)[:, None].to(resid.dtype)


def _ablate(
    resid: Float[Tensor, "rows pos d_model"],
    vectors: Float[Tensor, "rows d_model"],
    scales: Float[Tensor, " rows"],
) -> Float[Tensor, "rows pos d_model"]:
    share = _component(resid, vectors) * scales[:, None, None]
    return resid - (share * vectors[:, None]).to(resid.dtype)


def _clamp(
    resid: Float[Tensor, "rows pos d_model"],
    vectors: Float[Tensor, "rows d_model"],
    scales: Float[Tensor, " rows"],
) -> Float[Tensor, "rows pos d_model"]:
    missing = scales[:, None, None] - _component(resid, vectors)
    return resid + (missing * vectors[:, None]).to(resid.dtype)


def _component(
    resid: Float[Tensor, "rows pos d_model"], vectors: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows pos 1"]:
    """How much of each row's vector every position holds, in the vectors' precision."""
    return (resid.to(vectors.dtype) * vectors[:, None]).sum(-1, keepdim=True)


_EDITS = {"add": _add, "ablate": _ablate, "clamp": _clamp}
