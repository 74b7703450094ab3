"""What files of text hold, record by record: one record is in memory at a time, or few."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from saeflow.artifacts import json_of
from saeflow.config.text_files import kind_of, packing_of
from saeflow.errors import SaeflowError
from saeflow.seals import refuse_pointer
from saeflow.tensors import check_declared
from saeflow.unpacking import DAMAGE, UNPACKERS, plain, reason

_CHUNK = 1 << 20  # characters held at once, beside one record
LONGEST = 1 << 26  # characters of one record
_LARGE_GROUP = 1 << 28  # bytes of a piece of a Parquet file, unpacked
_ROWS_AT_ONCE = 256
_MARKS = {  # of the order of bytes, the longer ones first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_PACKED = (  # what packed bytes begin with, and how such files are named
    (b"\x1f\x8b\x08", ".gz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
    (b"BZh91AY&SY", ".bz2"),
    (b"\xfd7zXZ\x00", ".xz"),
)
_MARK = "\ufeff"  # stands inside where files were joined
_BETWEEN = _MARK + " \t\r\n,"  # JSON values
_DECODER = json.JSONDecoder()


class Record(NamedTuple):
    """One document as a file has it.

    Attributes:
        value: text, or fields by their names.
        where: it stands, for messages.
    """

    value: Any
    where: str


class Wanted(NamedTuple):
    """What is read of a file.

    Attributes:
        columns: those of a table that are read, given a sample of each and where the table stands.
        separator: what stands between documents of plain text.
    """

    columns: Callable[[Mapping[str, Any], str], list[str]]
    separator: str = "\n\n"


class _Decoded(NamedTuple):
    value: Any
    end: int


class _Pieces(io.RawIOBase):
    """A file's bytes, unpacked as they are read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = piece
        taken = self.rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self.rest = self.rest[len(taken) :]
        return len(taken)


def _bytes_of(path: Path) -> io.BufferedReader:
    return io.BufferedReader(_Pieces(UNPACKERS.get(packing_of(path.name), plain)(path)), _CHUNK)


@contextmanager
def _text_of(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The characters of a file: UTF-8, or what its mark of the order of bytes says."""
    with _bytes_of(path) as file:
        start = file.peek(_CHUNK)
        encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
        if packing := next((end for mark, end in _PACKED if start.startswith(mark)), None):
            raise SaeflowError(
                f"'{path}' is packed as {packing}, and its name says otherwise; let it end in "
                f"{packing}"
            )
        if encoding == "utf-8" and start.count(0) > len(start) // 4:
            raise SaeflowError(
                f"'{path}' is full of zero bytes, as UTF-16 without a mark of the "
                "order of bytes is, or no text at all; convert it to UTF-8"
            )
        with io.TextIOWrapper(file, encoding, newline=newline) as text:
            yield text


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    """A file that is read at places: a packed one is unpacked to disk first."""
    if not packing_of(path.name):
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as whole, _bytes_of(path) as packed:
        shutil.copyfileobj(packed, whole, _CHUNK)
        whole.seek(0)
        yield whole


def _separated(path: Path, wanted: Wanted) -> Iterator[Record]:
    pending = ""
    with _text_of(path) as file:
        while chunk := file.read(_CHUNK):
            *whole, pending = (pending + chunk).split(wanted.separator)
            yield from (Record(text.lstrip(_MARK), str(path)) for text in whole)
            if len(pending) > LONGEST:
                raise SaeflowError(
                    f"{path}: goes on for {LONGEST >> 20} Mi characters without "
                    f"{wanted.separator!r}, which stands between documents; set corpus.separator "
                    'to what does, for example "\\n" where each line is one'
                )
    yield Record(pending.lstrip(_MARK), str(path))


def _json_lines(path: Path, wanted: Wanted) -> Iterator[Record]:
    with _text_of(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), start=1):
            where, line = f"{path}, line {number}", line.strip(_MARK + " \t\r\n")
            if len(line) == LONGEST:
                raise _too_long(where)
            if not line:
                continue
            try:
                value = json_of(line, where)
            except ValueError as error:
                begins = ""
                if number == 1 and line[0] == "[":
                    begins = "; a list of records over several lines is a .json file: rename it"
                raise SaeflowError(
                    f"{where}: is not JSON ({error}); correct the line{begins}"
                ) from None
            yield Record(value, where)


def _too_long(where: str) -> SaeflowError:
    return SaeflowError(
        f"{where}: is one record of more than {LONGEST >> 20} Mi characters; write one record per "
        "document"
    )


def _json_values(path: Path, wanted: Wanted) -> Iterator[Record]:
    """The records of a list, or those that stand one after another."""
    held, in_list, ended, number, size = "", False, False, 0, _CHUNK
    with _text_of(path) as file:
        while held or not ended:
            held = held.lstrip(_BETWEEN)
            where = f"{path}, record {number + 1}"
            if not number and not in_list and held.startswith("["):
                held, in_list = held[1:], True
            elif in_list and held.startswith("]"):
                return
            elif (decoded := _first_value(held, where)) and (decoded.end < len(held) or ended):
                yield Record(decoded.value, where)
                held, number, size = held[decoded.end :], number + 1, _CHUNK
            elif ended and held:
                raise SaeflowError(
                    f"{where}: is not JSON, or it is cut ({held[:40]!r}); correct the file"
                )
            elif len(held) > LONGEST:
                raise _too_long(where)
            elif not ended:  # as much again, so that a long record is not read often
                more = file.read(size)
                held, size, ended = held + more, max(_CHUNK, len(held)), not more
    if in_list:
        raise SaeflowError(f"{path}: its list of records has no end; get the file again")


def _first_value(text: str, where: str) -> _Decoded | None:
    """The value that a text begins with, if it is whole."""
    try:
        return _Decoded(*_DECODER.raw_decode(text))
    except RecursionError:
        raise SaeflowError(f"{where}: its JSON is nested too deep; get it again") from None
    except ValueError:
        return None


def _table_of(delimiter: str) -> Callable[[Path, Wanted], Iterator[Record]]:
    def rows(path: Path, wanted: Wanted) -> Iterator[Record]:
        csv.field_size_limit(LONGEST)
        with _text_of(path, newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            try:
                for number, row in enumerate(reader, start=1):
                    if number == 1:
                        _check_header(path, reader.fieldnames or ())
                    if None in row:
                        raise SaeflowError(
                            f"{path}, line {reader.line_num}: has more cells than the table has "
                            f"columns; put a text that holds {delimiter!r} in quotes"
                        )
                    yield Record(row, f"{path}, row {number}")
            except csv.Error as error:
                raise SaeflowError(
                    f"{path}, line {reader.line_num}: is no table with {delimiter!r} "
                    f"between its columns ({error}); correct it"
                ) from None

    return rows


def _check_header(path: Path, names: Sequence[str]) -> None:
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise SaeflowError(f"{path}: has two columns '{twice[0]}'; rename or remove one of them")


def _parquet(path: Path, wanted: Wanted) -> Iterator[Record]:
    with _seekable(path) as stored, pq.ParquetFile(stored) as file:
        columns = wanted.columns(_samples(file.schema_arrow), str(path))
        _check_groups(path, file)
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            yield from (Record(row, str(path)) for row in batch.to_pylist())


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


def _arrow(path: Path, wanted: Wanted) -> Iterator[Record]:
    """A stream of Arrow, as ``datasets`` saves it, or a file."""
    with _bytes_of(path) as packed:
        if not packed.peek(6).startswith(b"ARROW1"):
            stream = pa.ipc.open_stream(packed)
            yield from _rows(stream.schema, stream, path, wanted)
            return
    with _seekable(path) as stored:
        file = pa.ipc.open_file(stored)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        yield from _rows(file.schema, batches, path, wanted)


def _rows(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], path: Path, wanted: Wanted
) -> Iterator[Record]:
    columns = wanted.columns(_samples(schema), str(path))
    for batch in batches:
        chosen = batch.select(columns)
        for start in range(0, chosen.num_rows, _ROWS_AT_ONCE):
            rows = chosen.slice(start, _ROWS_AT_ONCE).to_pylist()
            yield from (Record(row, str(path)) for row in rows)


def samples_of(path: Path) -> dict[str, Any]:
    """What a Parquet file holds, told by its head: for each column a value as its type tells it."""
    return _samples(pq.read_schema(path))


def _samples(schema: pa.Schema) -> dict[str, Any]:
    """For each column a value as its type tells it: text, a list of numbers, a list of fields."""
    return {field.name: _sample(field.type) for field in schema}


def _sample(type_: pa.DataType) -> Any:
    kinds = pa.types
    if kinds.is_dictionary(type_):
        return _sample(type_.value_type)
    if kinds.is_string(type_) or kinds.is_large_string(type_) or kinds.is_string_view(type_):
        return ""
    if kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_):
        return [_sample(type_.value_type)]
    if kinds.is_struct(type_):
        return {field.name: _sample(field.type) for field in type_}
    return 0 if kinds.is_integer(type_) else None


READERS: dict[str, Callable[[Path, Wanted], Iterator[Record]]] = {
    ".txt": _separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_values,
    ".csv": _table_of(","),
    ".tsv": _table_of("\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""By `saeflow.config.text_files.TEXT_KINDS`."""


def records_of(path: Path, wanted: Wanted, key: str) -> Iterator[Record]:
    """The records of a file of one of these kinds.

    Args:
        path: of the file.
        wanted: what is read of it.
        key: of the config, or a name, for messages.

    Raises:
        FileNotFoundError: it is absent.
        SaeflowError: it is damaged, or not what its name says.
    """
    try:
        refuse_pointer(path)
        yield from READERS[kind_of(path.name) or ""](path, wanted)
    except FileNotFoundError:
        raise  # callers know what else could be named
    except UnicodeDecodeError as error:
        raise SaeflowError(f"{key}: '{path}' is not UTF-8 text ({error}); convert it") from None
    except UnicodeError as error:
        raise SaeflowError(f"{key}: '{path}' is no text ({error}); convert it") from None
    except pa.ArrowInvalid as error:
        kind = "Parquet" if ".parquet" in path.name else "Arrow"
        raise SaeflowError(f"{path}: is not a whole {kind} file ({error}); get it again") from None
    except DAMAGE as error:
        raise SaeflowError(
            f"{key}: '{path}' is cut or damaged ({reason(error)}); get it again"
        ) from None
