"""The files that vectors to measure are taken from: an SAE, a safetensors file, an approximator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saeflow import seals
from saeflow.analyses.effects.approximation import less_bias
from saeflow.analyses.effects.candidates import check_rows
from saeflow.analyses.effects.counts import tensor_shape, vector_range
from saeflow.errors import DamagedError, SaeflowError
from saeflow.saes.io import load_sae
from saeflow.tensors import metadata_of

if TYPE_CHECKING:
    from saeflow.analyses.effects.settings import Vectors


def load_rows(
    settings: Vectors, source: Path, hook: str, d_model: int
) -> Float[Tensor, "n_rows d_model"]:
    """The rows that `candidate_vectors` draws from, checked.

    Args:
        settings: kind of vectors, and which of them.
        source: sae_weights.safetensors of the SAE, the file of vectors, or
            approximator.safetensors.
        hook: where the vectors are added.
        d_model: of the model.

    Raises:
        SaeflowError: the file is absent, damaged, of another model or hook, or one of its vectors
            cannot steer.
    """
    if settings.kind in ("decoder", "mixtures", "random"):
        sae = load_sae(source.parent)
        rows = sae.W_dec
        own_hook = sae.metadata.get("hook_name_out") or sae.metadata.get("hook_name")
    elif settings.kind == "file":
        rows = _tensors(source, settings.tensor)[settings.tensor].float()
        own_hook = _hook_of(source)
    else:
        tensors, own_hook = _tensors(source, "M", "b"), _hook_of(source)
        M, b = tensors["M"], tensors["b"]
        rows = less_bias(M.T, M, b, settings.bias_weight).float()
    if own_hook not in (None, hook):
        raise SaeflowError(
            f"{source}: is from hook '{own_hook}' and vectors are added at '{hook}'; take one of "
            "this hook"
        )
    numbers = vector_range(settings, len(rows))
    # mixtures may take any row, random directions none
    used = {"mixtures": range(len(rows)), "random": range(0)}.get(settings.kind, numbers)
    check_rows(rows, used, d_model, str(source))
    return rows


def _tensors(path: Path, matrix: str, *others: str) -> dict[str, Tensor]:
    tensor_shape(path, matrix)  # tells what is wrong with the file
    try:
        seals.check(path)
    except DamagedError as error:  # the user's own file, which no job makes again
        raise SaeflowError(f"{error.problem}; get it again") from None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in (matrix, *others)}
    except SafetensorError as error:
        raise SaeflowError(f"{path}: lacks a tensor ({error}); get it again") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SaeflowError(
                f"{path}: {name} holds numbers of type {kind}; give vectors in a floating type"
            )
    return tensors


def _hook_of(path: Path) -> str | None:
    """The hook that a file written here names in its metadata; None where it says nothing."""
    with safe_open(path, framework="pt") as file:
        try:
            hook = metadata_of(file, path).get("hook")
        except (KeyError, ValueError):
            return None
    return hook if isinstance(hook, str) else None
