"""Labels from and to other programs: Neuronpedia's exports, delphi's folders, tables as text.

What lies in such files was written by strangers, or by models: every label is brought to one line
without control characters, and what is no label is passed over or told of.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.labels.wording import LABELS, one_line
from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError

_LATENT = re.compile(r"latent_?(\d+)\.txt$")
_FORMULA = ("=", "+", "-", "@")


class Read(NamedTuple):
    """One label of a file."""

    latent: int
    text: str
    provenance: str


def imported_labels(path: Path, latents: pl.DataFrame) -> pl.DataFrame:
    """The labels of some latents from a file of another program; of several of one latent the
    first.

    Args:
        path: an export of Neuronpedia, a table as text, or a folder of delphi.
        latents: which, column latent.

    Returns:
        The columns of `LABELS`.

    Raises:
        SaeflowError: the file is none of these, or cannot be read.
    """
    wanted = set(latents["latent"].to_list())
    kept: dict[int, Read] = {}
    try:
        for read in _reader(path)(path):
            text = one_line(read.text)
            if read.latent in wanted and text:
                kept.setdefault(read.latent, read._replace(text=text))
    except (OSError, EOFError, ValueError, csv.Error, RecursionError) as error:
        raise SaeflowError(
            f"labels.imported: {path} cannot be read ({error}); get it again"
        ) from None
    rows = [
        (latent, "import", kept[latent].text, one_line(kept[latent].provenance))
        for latent in sorted(kept)
    ]
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def _reader(path: Path) -> Callable[[Path], Iterator[Read]]:
    if path.is_dir():
        return _delphi
    endings = {".jsonl": _lines, ".jsonl.gz": _lines, ".json": _list, ".csv": _table}
    for ending, reader in endings.items():
        if path.name.lower().endswith(ending):
            return reader
    raise SaeflowError(
        f"labels.imported: {path} is no file of labels; name one that ends in "
        f"{', '.join(endings)}, or a folder of delphi"
    )


def _lines(path: Path) -> Iterator[Read]:
    """A record of Neuronpedia per line."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _record(_parsed(line, f"{path}, line {number}"), path)


def _list(path: Path) -> Iterator[Read]:
    """A list of Neuronpedia's records, or an object that holds it as ``explanations``."""
    content = _parsed(path.read_text(encoding="utf-8"), str(path))
    records = content.get("explanations") if isinstance(content, dict) else content
    if not isinstance(records, list):
        raise _wrong(str(path), "holds no list of explanations")
    for record in records:
        yield _record(record, path)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _wrong(where, f"is not JSON ({error})") from None


def _record(record: Any, path: Path) -> Read:
    """Neuronpedia's ``index`` and ``description``, with who explained."""
    values = record if isinstance(record, dict) else {}
    index, text = values.get("index"), values.get("description")
    if not str(index).isdecimal() or not isinstance(text, str):
        raise _wrong(str(path), "has a record without index and description")
    by = [values.get("typeName"), values.get("explanationModelName")]
    return Read(int(str(index)), text, ", ".join(["Neuronpedia", *map(str, filter(None, by))]))


def _table(path: Path) -> Iterator[Read]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"latent", "text"} <= set(rows.fieldnames or ()):
            raise _wrong(str(path), "has no columns latent and text")
        for row in rows:
            if not str(row["latent"]).strip().isdecimal():
                raise _wrong(f"{path}, line {rows.line_num}", "has no number of a latent")
            yield Read(int(row["latent"]), _plain(row["text"] or ""), path.name)


def _delphi(path: Path) -> Iterator[Read]:
    """Files ``<module>_latent<number>.txt``, each a JSON string."""
    files = [(match, file) for file in path.iterdir() if (match := _LATENT.search(file.name))]
    if not files:
        raise _wrong(str(path), "has no files …_latent<number>.txt")
    for match, file in sorted(files, key=lambda pair: int(pair[0][1])):
        text = _parsed(file.read_text(encoding="utf-8"), str(file))
        if not isinstance(text, str):
            raise _wrong(str(file), "holds no text")
        yield Read(int(match[1]), text, "delphi")


def _wrong(where: str, what: str) -> SaeflowError:
    return SaeflowError(f"labels.imported: {where} {what}; get the file again")


def write_neuronpedia(output: Path, labels: pl.DataFrame, model: str, source: str) -> None:
    """Write labels as lines of Neuronpedia's exports of explanations.

    Args:
        output: the file, ``.jsonl``.
        labels: latent, source, text.
        model, source: what Neuronpedia calls the model and the SAE, as in ``gpt2-small`` and
            ``8-res-jb``.
    """
    lines = [
        {
            "modelId": model,
            "layer": source,
            "index": str(latent),
            "description": text,
            "typeName": f"saeflow-{by}",
            "explanationModelName": "saeflow",
        }
        for latent, by, text in labels.select("latent", "source", "text").iter_rows()
    ]
    _write(output, (json.dumps(line, ensure_ascii=False) for line in lines))


def write_delphi(output: Path, labels: pl.DataFrame, module: str) -> None:
    """Write labels as delphi's folders of explanations, one per source.

    Args:
        output: the folder; each source has a folder of its own in it.
        labels: latent, source, text.
        module: what delphi calls the place, such as ``layers.5``.
    """
    for latent, by, text in labels.select("latent", "source", "text").iter_rows():
        file = output / by / "explanations" / f"{module}_latent{latent}.txt"
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")


def sheet_text(labels: pl.DataFrame) -> str:
    """A table of labels as CSV, in which no label is taken for a formula by programs that open
    tables: one that begins like it has an apostrophe before it."""
    texts = [name for name, kind in labels.schema.items() if kind == pl.String]
    formula = {name: pl.col(name).str.starts_with(_FORMULA[0]) for name in texts}
    for name in texts:
        for sign in _FORMULA[1:]:
            formula[name] |= pl.col(name).str.starts_with(sign)
    safe = labels.with_columns(
        pl.when(formula[name]).then(pl.concat_str(pl.lit("'"), name)).otherwise(name).alias(name)
        for name in texts
    )
    return safe.write_csv()


def write_sheet(path: Path, labels: pl.DataFrame) -> None:
    """Write labels as CSV by `sheet_text`."""
    with atomic(path) as temporary:
        temporary.write_text(sheet_text(labels), encoding="utf-8", newline="")


def _plain(text: str) -> str:
    """The label of a cell that `sheet_text` wrote."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _write(path: Path, lines: Iterable[str]) -> None:
    content = io.StringIO()
    content.writelines(f"{line}\n" for line in lines)
    with atomic(path) as temporary:
        temporary.write_text(content.getvalue(), encoding="utf-8")
