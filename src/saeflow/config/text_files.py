"""Which files hold text that a corpus is made of, by their names alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

TEXT_KINDS = (
    ".txt",
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
)
PACKED = (".gz", ".zst", ".bz2", ".xz")
KINDS_IN_WORDS = f"{', '.join(TEXT_KINDS)}, alone or packed as {', '.join(PACKED)}"
# What stands beside text, and tells of it: of data sets of Hugging Face, and of this library.
_ABOUT_TEXT = (
    "checksums.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "published.json",
    "state.json",
)


def kind_of(name: str) -> str | None:
    """What a file holds, one of `TEXT_KINDS`; None where its name promises no text."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in TEXT_KINDS else None


def packing_of(name: str) -> str:
    """How a file is packed, one of `PACKED`, or ""."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in PACKED else ""


def texts_among(names: Iterable[str]) -> list[str]:
    """Those names of the files of a folder, or of a data set, that are text: not what tells of the
    text, or is hidden. A plain .json beside other files is taken for what tells of them."""
    texts = [name for name in sorted(names) if _is_text(PurePosixPath(name))]
    return [name for name in texts if not name.lower().endswith(".json")] or texts


def _is_text(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return bool(kind_of(path.name)) and path.name not in _ABOUT_TEXT and not hidden
