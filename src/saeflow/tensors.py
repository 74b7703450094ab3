"""Files of tensors that strangers wrote: what a file declares is held against its size before
anything is read.

A file of a few kilobytes can declare terabytes: an array of any shape in an ``.npz``, an expanded
tensor in a ``.pt``, a data set without data in HDF5. No honest file holds more than `RATIO` times
what it weighs, so what declares more is refused in one sentence, and memory stays within that
bound.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from saeflow import seals
from saeflow.artifacts import json_of
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from torch import Tensor

RATIO = 50
"""How many times its file's size a compressed array may have; trained weights hardly compress."""
FREE = 1 << 26
"""Bytes that any file may declare: small tables of zeros compress well."""
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
# What a pickle of dense tensors names: how one is put together, its storage, dtypes and containers.
_PICKLED = re.compile(
    r"torch\._utils (_rebuild_tensor_v2|_rebuild_parameter(_with_state)?)|torch\._tensor "
    r"_rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter|torch Tensor|collections OrderedDict|torch "
    r"(\w+Storage|Size|device)"
    r"|torch (b?float\w+|half|double|u?int\w+|long|short|bool)|torch\.storage "
    r"(Untyped|Typed)Storage"
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors``, ``.npz`` or ``.pt`` file, dense, on the CPU.

    A pickle may hold tensors, numbers and containers, and nothing that runs code.

    Raises:
        SaeflowError: the file is absent, damaged, holds something else than named tensors, or
            declares more than it holds.
    """
    from torch import Tensor

    content = read_content(path)
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise SaeflowError(f"{path}: is no dictionary of tensors; get the weights alone")
    return dict(content)


def read_content(path: Path) -> Any:
    """What a file of tensors holds: of a pickle, numbers, texts and containers, too.

    Raises:
        SaeflowError: as `read_tensors`, but for what is in it.
    """
    path = Path(path)
    with _reading(path):
        if path.suffix == ".safetensors":
            seals.check(path)
        return _READERS[path.suffix](path)


@contextmanager
def _reading(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Tells in a sentence that a file is not there, or what damage, or an exception of `also`,
    keeps it from being read."""
    if not path.is_file():
        raise SaeflowError(f"{path}: no such file; get it again or correct its path")
    damage: tuple[type[Exception], ...] = (*_DAMAGE, SafetensorError, *also)
    try:
        seals.refuse_pointer(path)
        yield
    except damage as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise SaeflowError(f"{path}: cannot be read ({what:.200}); get it again") from None


def read_pickle(path: Path, mmap: bool = False) -> Any:
    """What a file of `torch.save` holds: dense tensors on the CPU, numbers, texts and containers.

    The pickle is looked through before it is loaded: it may name nothing but what dense tensors are
    made of, and its archive is no larger unpacked than packed. Afterwards every tensor is as large
    as its storage, since one that is expanded takes a byte in the file and any number where it is
    computed with.

    Raises:
        SaeflowError: the file holds more than that, or tensors of another kind.
        ValueError: the file is damaged; and whatever else torch raises there.
    """
    import torch

    _check_pickle(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except pickle.UnpicklingError:
        raise SaeflowError(
            f"{path}: holds more than tensors, or is damaged; get it from a source you trust"
        ) from None
    for name, tensor in _tensors_in(content):
        stored = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 0
        if tensor.numel() * tensor.element_size() > stored:
            shape = list(tensor.shape)
            raise SaeflowError(
                f"{path}: {name} of shape {shape} is not stored whole (expanded or sparse); get it "
                "again"
            )
    return content


def _check_pickle(path: Path) -> list[bytes]:
    """The pickles of a file of `torch.save`, once they are found to name tensors alone."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of torch 1.6 or later")
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise SaeflowError(
                f"{path}: declares more than it holds; get it from a source you trust"
            )
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        pickles = [archive.read(name) for name in names]
        for content in pickles:
            for opcode, argument, _ in pickletools.genops(content):
                if opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST") and not _PICKLED.fullmatch(
                    str(argument)
                ):
                    raise SaeflowError(
                        f"{path}: holds more than tensors ({argument}); get it from a source you "
                        "trust"
                    )
    return pickles


class Declared(NamedTuple):
    """What a file says of a tensor before any of its numbers is read."""

    shape: tuple[int, ...]


def read_headers(path: Path) -> Any:
    """What `read_tensors` or `read_pickle` gives, with a `Declared` in place of every tensor;
    without torch.

    Raises:
        SaeflowError: the file is absent, damaged or of another kind, or holds more than tensors.
    """
    if path.is_file() and path.suffix not in _READERS:
        raise SaeflowError(
            f"{path}: is no file of tensors; known are those that end in {', '.join(_READERS)}"
        )
    with _reading(path, pickle.UnpicklingError, IndexError, AttributeError):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
                return {name: Declared(tuple(file.get_slice(name).get_shape())) for name in names}
        if path.suffix == ".npz":
            return {name: Declared(shape) for name, shape in check_npz(path).items()}
        return _Headers(_check_pickle(path)[0]).load()


class _Headers(pickle.Unpickler):
    """Puts nothing together: whatever a pickle calls gives a shape, a container, or nothing."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))

    def find_class(self, module: str, name: str) -> Any:
        return {
            "_rebuild_tensor_v2": lambda storage, offset, size, *rest: Declared(tuple(size)),
            "_rebuild_parameter": lambda declared, *rest: declared,
            "_rebuild_parameter_with_state": lambda declared, *rest: declared,
            "_rebuild_from_type_v2": lambda call, kind, arguments, state: call(*arguments),
            "OrderedDict": OrderedDict,
            "Size": tuple,
        }.get(name, lambda *arguments: None)

    def persistent_load(self, reference: Any) -> None:
        return None


def _tensors_in(content: Any, name: str = "it") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, with the name of the nearest key."""
    from torch import Tensor

    seen: set[int] = set()
    waiting = [(name, content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, dict) else ((name, inner) for inner in value)
            waiting.extend((str(key), inner) for key, inner in pairs)


def _read_npz(path: Path) -> dict[str, Tensor]:
    import torch

    check_npz(path)
    with np.load(path, allow_pickle=False) as arrays:
        read = {name: arrays[name] for name in arrays.files}
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        for name, array in read.items()
    }


def check_npz(path: Path) -> dict[str, tuple[int, ...]]:
    """Hold the headers of an ``.npz`` against its members, and these against its size.

    Returns:
        The shapes of its arrays.

    Raises:
        ValueError: a member is no array of numbers, or declares another size than it has.
        SaeflowError: unpacked it is too large for its file.
    """
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_declared(path, sum(member.file_size for member in members), path.stat().st_size)
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(file)
                if dtype.hasobject or dtype.kind not in "fiubc":
                    raise ValueError(f"{member.filename} holds no numbers but {dtype}")
                if (
                    min(shape, default=0) < 0
                    or prod(shape) * dtype.itemsize + file.tell() != member.file_size
                ):
                    raise ValueError(
                        f"{member.filename} declares {list(shape)} numbers and has "
                        f"{member.file_size} bytes"
                    )
                shapes[member.filename.removesuffix(".npy")] = shape
    return shapes


def check_declared(path: Path, declared: int, size: int) -> None:
    """Hold the bytes that a file's numbers would take against those that it has.

    Raises:
        SaeflowError: they are more than any compression makes of it.
    """
    if declared > max(FREE, RATIO * size):
        raise SaeflowError(
            f"{path}: declares {declared:,} bytes and has {size:,}, less than a {RATIO}th; "
            "get it from a source you trust"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)  # the library holds its header against the file's size


_PICKLES = dict.fromkeys((".pt", ".pth", ".bin"), read_pickle)
_READERS = {".safetensors": _read_safetensors, ".npz": _read_npz, **_PICKLES}
SUFFIXES = tuple(_READERS)
"""Of files of tensors."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file to read whose data sets are its own and no larger than it can hold.

    HDF5 can name other files (external links, external and virtual data sets), whose bytes would be
    read as this file's; and a data set can declare any shape without data.

    Raises:
        SaeflowError: something in it is neither a group nor a data set of its own, or declares too
            much.
        OSError: it is no HDF5 file, or damaged.
    """
    import h5py

    seals.refuse_pointer(path)
    with h5py.File(path, "r") as file:
        declared = 0
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise SaeflowError(
                    f"{path}: '{name}' links to another place; get a file that holds its data "
                    "itself"
                )
            item = file[name]
            if not isinstance(item, h5py.Dataset):
                raise SaeflowError(f"{path}: '{name}' is no data set; get it again")
            if item.is_virtual or item.external:
                raise SaeflowError(
                    f"{path}: '{name}' reads other files; get a file that holds its data itself"
                )
            if item.dtype.kind not in "fiub":
                raise SaeflowError(
                    f"{path}: '{name}' holds no numbers but {item.dtype}; get it again"
                )
            declared += item.nbytes
        check_declared(path, declared, path.stat().st_size)
        yield file


def metadata_of(file: Any, where: Path, key: str = "metadata") -> dict[str, Any]:
    """The JSON object that an open safetensors file keeps as text among its metadata.

    Raises:
        KeyError: it keeps none.
        ValueError: it is no JSON object.
        SaeflowError: it is nested too deep.
    """
    value = json_of((file.metadata() or {})[key], where)
    if not isinstance(value, dict):
        raise ValueError(f"its {key} is a {type(value).__name__}, not names and values")
    return value
