"""Labels come from other programs' files and go back to them, and hostile ones do no harm."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from saeflow.analyses.labels.exchange import (
    imported_labels,
    sheet_text,
    write_delphi,
    write_neuronpedia,
    write_sheet,
)
from saeflow.analyses.labels.summary import label_table
from saeflow.analyses.labels.wording import LABELS, LONGEST, one_line
from saeflow.errors import SaeflowError

LATENTS = pl.DataFrame({"latent": [1, 5, 7]}, schema={"latent": pl.Int32})
HOSTILE = "<script>alert(1)</script>\n\x1b[31mred\u202egnp.exe\x00"
RECORDS = [
    {"modelId": "m", "layer": "8-res", "index": "5", "description": "ships at sea",
     "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini"},
    {"index": 9, "description": "not asked for"},
    {"index": 5, "description": "a second label of the same latent"},
    {"index": 7, "description": HOSTILE},
    {"index": 1, "description": "   "},
]  # fmt: skip


def read(path: Path) -> dict[int, str]:
    return dict(imported_labels(path, LATENTS).select("latent", "text").iter_rows())


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz", "labels.json", "wrapped.json"])
def test_neuronpedias_exports_are_read_whichever_way_they_are_packed(
    tmp_path: Path, name: str
) -> None:
    text = "\n".join(map(json.dumps, RECORDS)) + "\n"
    if name.endswith(".json"):
        text = json.dumps({"explanations": RECORDS} if name == "wrapped.json" else RECORDS)
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(content)
    table = imported_labels(tmp_path / name, LATENTS)
    assert table.schema == LABELS
    assert table["latent"].to_list() == [5, 7]
    assert table["text"][0] == "ships at sea"
    assert table["provenance"][0] == "Neuronpedia, oai_token-act-pair, gpt-4o-mini"


def test_a_hostile_label_becomes_one_printable_line() -> None:
    line = one_line(HOSTILE)
    assert line.isprintable()
    assert line.startswith("<script>alert(1)</script> ")  # pages escape it
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert len(one_line("word " * 1000)) == LONGEST


@pytest.mark.parametrize("layout", ["neuronpedia", "delphi"])
def test_what_is_exported_is_imported_again(tmp_path: Path, layout: str) -> None:
    texts = {1: 'quotes "here", and é', 5: "ships", 7: one_line(HOSTILE)}
    rows = [(latent, "self", text, "") for latent, text in texts.items()]
    table = label_table("main", [pl.DataFrame(rows, schema=LABELS, orient="row")])
    if layout == "neuronpedia":
        write_neuronpedia(tmp_path / "out.jsonl", table, "gpt2-small", "8-res-jb")
        first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
        assert (first["modelId"], first["layer"], first["index"]) == ("gpt2-small", "8-res-jb", "1")
        assert read(tmp_path / "out.jsonl") == texts
    else:
        write_delphi(tmp_path / "out", table, "layers.8")
        folder = tmp_path / "out/self/explanations"
        assert json.loads((folder / "layers.8_latent5.txt").read_text()) == "ships"
        assert read(folder) == texts


def test_a_label_is_no_formula_in_the_csv_and_itself_when_read_back(tmp_path: Path) -> None:
    texts = {1: '=HYPERLINK("http://x","y")', 5: "-1", 7: "harmless"}
    rows = [(latent, "import", text, "@somebody") for latent, text in texts.items()]
    table = label_table("main", [pl.DataFrame(rows, schema=LABELS, orient="row")])
    cells = list(csv.DictReader(sheet_text(table).splitlines()))
    assert [cell["text"] for cell in cells] == [f"'{texts[1]}", "'-1", "harmless"]
    assert {cell["provenance"] for cell in cells} == {"'@somebody"}
    write_sheet(tmp_path / "labels.csv", table)
    assert read(tmp_path / "labels.csv") == texts


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.txt", "ships", "no file of labels"),
        ("labels.jsonl", '{"index": 1}', "record without index and description"),
        ("labels.jsonl", '{"index": 1, "description": ["a"]}', "without index and description"),
        ("labels.jsonl", "[1", "line 1 is not JSON"),
        ("labels.json", '{"labels": []}', "holds no list"),
        ("labels.json", "[" * 100_000, "cannot be read"),
        ("labels.json", '[{"index": "' + "1" * 5000 + '", "description": ""}]', "cannot be read"),
        ("labels.jsonl.gz", "not packed", "cannot be read"),
        ("labels.csv", "number,words\n1,a\n", "has no columns latent and text"),
        ("labels.csv", "latent,text\nfive,a\n", "line 2 has no number of a latent"),
    ],
)
def test_a_file_that_holds_no_labels_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SaeflowError, match=said) as error:
        imported_labels(tmp_path / name, LATENTS)
    assert "\n" not in str(error.value)


def test_a_folder_without_delphis_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="has no files"):
        imported_labels(tmp_path, LATENTS)
    wrong: Any = {"text": "a"}
    (tmp_path / "layers.1_latent1.txt").write_text(json.dumps(wrong))
    with pytest.raises(SaeflowError, match="holds no text"):
        imported_labels(tmp_path, LATENTS)
