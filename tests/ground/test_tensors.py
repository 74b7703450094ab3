"""Files of tensors that were made to hurt: one sentence each, and memory within bounds."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saeflow.artifacts import json_of, read_json
from saeflow.errors import SaeflowError
from saeflow.tensors import open_hdf5, read_tensors

WHOLE = {
    "a": torch.arange(12.0).view(3, 4),
    "b": torch.ones(5, dtype=torch.bfloat16),
    "k": torch.tensor(3),
}
PROGRAM = """
import sys
from pathlib import Path
from saeflow.tensors import read_tensors
try:
    read_tensors(sys.argv[1])
finally:
    print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if
    "VmHWM" in line))
"""


def array(shape: tuple[int, ...], kind: str = "<f4", data: bytes = b"") -> bytes:
    """An array of NumPy's format that declares any shape and holds any bytes."""
    header = (
        repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(181) + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(path: Path, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", content)


def zeros_npz(path: Path, megabytes: int) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        file.write(array((megabytes, 1 << 18)))
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def deflated_pt(path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 22)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


class Code:
    """Something that a pickle would run."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("ran",)


QUANTISED = torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.quint8)
HOSTILE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "an array of 10^15 numbers without any": (
        "npz",
        lambda p: npz(p, array((10**8, 10**7))),
        r"declares \[.+ numbers and has",
    ),
    "a negative shape": (
        "npz",
        lambda p: npz(p, array((-4, 8), data=bytes(128))),
        r"declares \[.+ numbers and has",
    ),
    "a shape beyond 64 bits": (
        "npz",
        lambda p: npz(p, array((2**70, 2**70))),
        r"declares \[.+ numbers and has",
    ),
    "12 GB of zeros": (
        "npz",
        lambda p: npz(p, array((3, 1 << 30))),
        r"declares \[.+ numbers and has",
    ),
    "objects": (
        "npz",
        lambda p: npz(p, array((1,), "|O", pickle.dumps([1]))),
        "holds no numbers but object",
    ),
    "texts": ("npz", lambda p: npz(p, array((1,), "<U3", bytes(12))), "holds no numbers but <U3"),
    "a header that is code": (
        "npz",
        lambda p: npz(p, array((1,)).replace(b"'shape'", b"exit() ")),
        "cannot be read",
    ),
    "no array": ("npz", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "cannot be read"),
    "an expanded tensor": (
        "pt",
        lambda p: torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, p),
        r"a of shape \[1000000, 1000000\] is not stored whole",
    ),
    "a view that overlaps itself": (
        "pt",
        lambda p: torch.save({"a": torch.as_strided(torch.zeros(8), (8, 4), (0, 1))}, p),
        "is not stored whole",
    ),
    "an expanded tensor further in": (
        "pt",
        lambda p: torch.save({"state": [{"a": torch.zeros(1).expand(10**9)}]}, p),
        "is not stored whole",
    ),
    "a sparse tensor": (
        "pt",
        lambda p: torch.save({"a": torch.zeros(8, 4).to_sparse()}, p),
        "holds more than tensors",
    ),
    "a tensor without numbers": (
        "pt",
        lambda p: torch.save({"a": torch.zeros(8, 4, device="meta")}, p),
        "holds more than tensors",
    ),
    "a quantised tensor": (
        "pt",
        lambda p: torch.save({"a": QUANTISED}, p),
        "holds more than tensors",
    ),
    "code": ("pt", lambda p: torch.save({"a": Code()}, p), "holds more than tensors"),
    "a buffer of any size": (
        "pt",
        lambda p: torch.save({"a": bytearray(9)}, p),
        "holds more than tensors",
    ),
    "an archive that grows": ("pt", deflated_pt, "declares more than it holds"),
    "a pickle alone": (
        "pt",
        lambda p: p.write_bytes(pickle.dumps(Code())),
        "no archive of torch 1.6 or later",
    ),
    "numbers for names": (
        "pt",
        lambda p: torch.save({5: torch.zeros(1)}, p),
        "is no dictionary of tensors",
    ),
    "a list": ("pt", lambda p: torch.save([torch.zeros(1)], p), "is no dictionary of tensors"),
    "a header of 2^63 bytes": (
        "safetensors",
        lambda p: p.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
        "cannot be read",
    ),
    "nothing": ("safetensors", lambda p: p.write_bytes(b""), "cannot be read"),
    "a folder": ("safetensors", lambda p: p.mkdir(), "no such file"),
    "a device": ("safetensors", lambda p: p.symlink_to("/dev/zero"), "no such file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_was_made_to_hurt_is_one_sentence(tmp_path: Path, case: str) -> None:
    suffix, make, message = HOSTILE[case]
    path = tmp_path / f"weights.{suffix}"
    make(path)
    with pytest.raises(SaeflowError, match=message) as refusal:
        read_tensors(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
def test_an_honest_file_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    tensors = {
        name: value
        for name, value in WHOLE.items()
        if suffix != "npz" or value.dtype != torch.bfloat16
    }
    if suffix == "safetensors":
        save_file(tensors, path)
    elif suffix == "pt":
        torch.save(
            tensors
            | {"view": torch.arange(9.0)[2:5], "parameter": torch.nn.Parameter(torch.ones(2))},
            path,
        )
    else:
        np.savez_compressed(path, **{name: value.numpy() for name, value in tensors.items()})
    read = read_tensors(path)
    assert all(
        torch.equal(read[name], value) and read[name].dtype == value.dtype
        for name, value in tensors.items()
    )


def test_numbers_of_the_other_byte_order_are_read_as_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.arange(5, dtype=">f4"))
    assert torch.equal(read_tensors(tmp_path / "a.npz")["a"], torch.arange(5.0))


def test_a_bomb_takes_no_more_memory_than_a_small_file(tmp_path: Path) -> None:
    """3 GB of zeros in 3 MB, read by a process that may have 2 GB beside what torch maps."""
    zeros_npz(tmp_path / "bomb.npz", 3 << 10)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "bomb.npz"],
        capture_output=True,
        text=True,
        preexec_fn=limited,
    )
    assert "saeflow.errors.SaeflowError" in done.stderr
    assert "declares 3,221,2" in done.stderr
    assert int(done.stdout) << 10 < 1 << 30


def hdf5(path: Path, fill: Callable[[Any], Any]) -> Path:
    with h5py.File(path, "w") as file:
        file["good"] = np.ones(3)
        fill(file)
    return path


def test_hdf5_that_reads_other_files_or_declares_what_it_does_not_hold_is_one_sentence(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"secret" * 100)
    hdf5(tmp_path / "other.h5", lambda file: None)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "good", (3,))
    for fill, message in (
        (
            lambda file: file.create_dataset("x", (9,), "f4", external=[(str(secret), 0, 36)]),
            "'x' reads other files",
        ),
        (lambda file: file.create_virtual_dataset("x", layout), "'x' reads other files"),
        (
            lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/good")),
            "'x' links to another place",
        ),
        (lambda file: file.__setitem__("x", h5py.SoftLink("/good")), "'x' links to another place"),
        (lambda file: file.create_group("x"), "'x' is no data set"),
        (lambda file: file.__setitem__("x", "text"), "'x' holds no numbers"),
        (
            lambda file: file.create_dataset("x", (10**7, 10**6), "f4", chunks=(1, 1024)),
            "declares 40,000,000,000,024",
        ),
    ):
        path = hdf5(tmp_path / "x.h5", fill)
        with pytest.raises(SaeflowError, match=message), open_hdf5(path):
            pass
    with open_hdf5(tmp_path / "other.h5") as file:
        assert file["good"][:].tolist() == [1, 1, 1]


def test_json_that_is_too_deep_or_no_json_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' * 500 + "1" + "}" * 500, "nested deeper than 100"),
        ("[" * 90 + "]" * 90, None),
        ("1" * 5000, "is not JSON"),
        ("{", "is not JSON"),
    ):
        path.write_text(text)
        if message is None:
            assert read_json(path) == json_of(text, path) == json.loads(text)
            continue
        with pytest.raises(SaeflowError, match=message) as refusal:
            read_json(path)
        assert "\n" not in str(refusal.value)
    with pytest.raises(SaeflowError, match="is a folder"):
        read_json(tmp_path)
