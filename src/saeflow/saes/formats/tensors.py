"""Files of tensors as dictionaries of tensors: read whole, checked, written atomically."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeflow import seals
from saeflow.artifacts import atomic, sealed, stamp
from saeflow.errors import SaeflowError

_DAMAGE = (SafetensorError, zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors``, ``.npz`` or ``.pt`` file, on the CPU.

    A pickle may hold tensors, numbers and containers, and nothing that runs code.

    Raises:
        SaeflowError: the file is absent, damaged, or holds something else than named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise SaeflowError(f"{path}: no such file; get the SAE again or correct its path")
    try:
        if path.suffix == ".safetensors":
            seals.check(path)
        content = _READERS[path.suffix](path)
    except pickle.UnpicklingError:
        raise SaeflowError(f"{path}: holds more than tensors, or is damaged; get it from a source you trust") from None
    except _DAMAGE as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise SaeflowError(f"{path}: cannot be read ({what}); get it again") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise SaeflowError(f"{path}: is no dictionary of tensors; get the SAE's weights alone")
    return dict(content)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _read_pickle(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


_READERS = {".safetensors": load_file, ".npz": _read_npz, ".pt": _read_pickle}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as ``.safetensors``, ``.npz`` or ``.pt``, by the file's name, atomically."""
    path = Path(path)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        with sealed(path) as temporary:
            save_file(whole, temporary, metadata=stamp())
        return
    with atomic(path) as temporary:
        if path.suffix == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **{name: tensor.numpy() for name, tensor in whole.items()})
        else:
            torch.save(whole, temporary)


def checked(where: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors named in `shapes`, in fp32, vectors in fp64, in which biases are folded.

    Raises:
        SaeflowError: one is absent, has another shape, or holds a value that is not finite.
    """
    found = {}
    for name, shape in shapes.items():
        if name not in tensors:
            raise SaeflowError(f"{where}: has no tensor {name}; get it again")
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise SaeflowError(
                f"{where}: {name} has shape {list(tensor.shape)}, where the rest says {list(shape)}; get it again"
            )
        if not tensor.isfinite().all():
            raise SaeflowError(f"{where}: {name} holds values that are not finite; get it again")
        found[name] = tensor.float() if tensor.ndim == 2 else tensor.double()
    return found


def shape_of(where: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """The shape of a matrix that tells the widths, where no config does.

    Raises:
        SaeflowError: it is absent or no matrix.
    """
    if name not in tensors:
        raise SaeflowError(f"{where}: has no tensor {name}; get it again")
    if tensors[name].ndim != 2:
        raise SaeflowError(f"{where}: {name} has shape {list(tensors[name].shape)}, it must be a matrix; get it again")
    first, second = tensors[name].shape
    return first, second
