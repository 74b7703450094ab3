"""Documents of local files, split so that no document is in two splits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from saeflow.artifacts import json_of
from saeflow.config.sections import Corpus
from saeflow.corpora.tokens import TokenBlocks, pack, without_bos
from saeflow.errors import SaeflowError
from saeflow.seals import refuse_pointer
from saeflow.tensors import check_declared

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAE_SHARE = (
    0.8  # the rest is "eval"; no model is trained on a text file, so its split "model" is empty
)
_CHUNK = 1 << 20  # characters of a .txt file held at once, beside one document
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_LARGE_GROUP = 1 << 28  # bytes of a piece of a Parquet file, unpacked
_DOCUMENTS_AT_ONCE = 256  # tokenised together, which lets a fast tokenizer use its threads


def documents(corpus: Corpus, split: str) -> Iterator[str]:
    """The documents of one split, in the files' order; empty ones are left out.

    Equal documents are in the same split: it follows from the document's hash alone.

    Args:
        corpus: with ``path``, a file or a folder of them, and ``separator`` (.txt) or ``field``
            (.jsonl, .parquet).
        split: ``model``, ``sae`` or ``eval``.

    Raises:
        SaeflowError: a file is absent, of an unknown kind, or lacks the field.
    """
    for path in _files(Path(corpus.path or "")):
        try:
            refuse_pointer(path)
            for document in READERS[path.suffix](path, corpus):
                if document.strip() and split_of(document) == split:
                    yield document
        except FileNotFoundError:
            raise SaeflowError(
                f"corpus.path: '{path}' does not exist; name a .txt, .jsonl or .parquet file"
            ) from None
        except UnicodeDecodeError as error:
            raise SaeflowError(
                f"corpus.path: '{path}' is not UTF-8 text ({error}); convert it"
            ) from None


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder by their names: a data set of the hub is a folder
    of .parquet."""
    if path.is_dir():
        if files := sorted(file for file in path.rglob("*") if file.suffix in READERS):
            return files
        raise SaeflowError(
            f"corpus.path: '{path}' holds no {', '.join(READERS)} file; name another folder"
        )
    if path.suffix not in READERS:
        raise SaeflowError(
            f"corpus.path: '{path}' is not one of {', '.join(READERS)}; convert it or name another "
            "file"
        )
    return [path]


def split_of(document: str) -> str:
    """The split a document belongs to, by its hash."""
    place = (
        int.from_bytes(hashlib.blake2b(document.strip().encode(), digest_size=8).digest(), "big")
        / 2.0**64
    )
    return "sae" if place < _SAE_SHARE else "eval"


def tokenised_blocks(
    corpus: Corpus, split: str, tokenizer: PreTrainedTokenizerBase, bos_id: int
) -> TokenBlocks:
    """Tokenise one split and fill ``corpus.tokens.<split> // context`` blocks with it.

    Args:
        corpus: its ``context`` and ``tokens`` say how many blocks of which length, ``join`` whether
            documents share them.
        split: ``sae`` or ``eval``.
        tokenizer: of the model.
        bos_id: the model's token that opens a text.

    Raises:
        SaeflowError: the split holds fewer tokens than asked.
    """
    blocks = int(getattr(corpus.tokens, split)) // corpus.context
    try:
        tokenised = _tokenised(documents(corpus, split), tokenizer, bos_id)
        return pack(tokenised, corpus.context, bos_id, blocks, corpus.join)
    except SaeflowError as error:
        raise SaeflowError(f"{error} (split '{split}' of {corpus.path})") from None


def _tokenised(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, bos_id: int
) -> Iterator[list[int]]:
    """Token ids without the BOS that a chat template may have written in front of a document."""
    while batch := list(islice(texts, _DOCUMENTS_AT_ONCE)):
        for tokens in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            yield tokens if tokens[:1] != [bos_id] else without_bos(tokens, bos_id)


def _separated(path: Path, corpus: Corpus) -> Iterator[str]:
    pending = ""
    with path.open(encoding="utf-8-sig") as file:
        while chunk := file.read(_CHUNK):
            *whole, pending = (pending + chunk).split(corpus.separator)
            yield from whole
    yield pending


def _json_lines(path: Path, corpus: Corpus) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json_of(line, where)
            except ValueError as error:
                raise SaeflowError(f"{where}: is not JSON ({error}); correct the line") from None
            value = record.get(corpus.field) if isinstance(record, dict) else None
            yield _text(value, corpus.field, where)


def _text(value: Any, field: str, where: str) -> str:
    """A field's value, if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        kind = "" if value is None else f" but a {type(value).__name__}"
        raise SaeflowError(f"{where}: has no text{kind} in the field '{field}'; set corpus.field")
    if not value.isascii() and (half := _HALF_A_CHARACTER.search(value)):
        raise SaeflowError(
            f"{where}: holds half of a character (\\u{ord(half[0]):04x}, a lone surrogate) in the "
            f"field '{field}'; "
            "correct or remove the line"
        )
    return value


def _parquet_column(path: Path, corpus: Corpus) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            if corpus.field not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise SaeflowError(
                    f"{path}: has no column '{corpus.field}' but {names}; set corpus.field"
                )
            _check_groups(path, file)
            for batch in file.iter_batches(batch_size=_DOCUMENTS_AT_ONCE, columns=[corpus.field]):
                texts = (text for text in batch.column(0).to_pylist() if text is not None)
                yield from (_text(text, corpus.field, str(path)) for text in texts)
    except pa.ArrowInvalid as error:
        raise SaeflowError(f"{path}: is not a whole Parquet file ({error}); get it again") from None


def _check_groups(path: Path, file: pq.ParquetFile) -> None:
    """Refuse a file whose pieces, one of which is in memory at a time, unpack to what no text
    does."""
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        packed = sum(
            group.column(place).total_compressed_size for place in range(group.num_columns)
        )
        if group.total_byte_size > _LARGE_GROUP:
            check_declared(path, group.total_byte_size, packed)


READERS: dict[str, Callable[[Path, Corpus], Iterator[str]]] = {
    ".txt": _separated,
    ".jsonl": _json_lines,
    ".parquet": _parquet_column,
}
