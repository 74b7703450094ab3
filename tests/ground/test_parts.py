"""Parts that a job has finished are taken again only where nothing that made them has changed."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from saeflow import parts
from saeflow.parts import Parts, code_digest, digest

SCHEMA = {"latent": pl.Int64, "effect": pl.Float64, "words": pl.List(pl.String)}
NAMES = ("a", "b", "c")


def table(name: str) -> pl.DataFrame:
    effect = torch.rand(1, generator=torch.Generator().manual_seed(ord(name)), dtype=torch.float64)
    row = {"latent": [ord(name)], "effect": effect.numpy(), "words": [[name, "é"]]}
    return pl.DataFrame(row, schema=SCHEMA)


class Job:
    """Makes a table per name, and counts what it makes."""

    def __init__(self, folder, names=NAMES, code=(), made_with=("settings",), made_from=None):
        self.made: list[str] = []
        sources = made_from or {name: [name, torch.ones(2)] for name in names}

        def make(places):
            self.made = [names[place] for place in places]
            return [table(name) for name in self.made]

        self.tables = Parts(folder, "kind", code, *made_with).tables(sources, SCHEMA, make)
        assert all(map(pl.DataFrame.equals, self.tables, map(table, names)))


def test_parts_are_made_once_and_in_any_company(tmp_path):
    assert Job(tmp_path).made == ["a", "b", "c"]
    assert Job(tmp_path).made == []
    assert Job(tmp_path, ("d", "b", "a")).made == ["d"]
    assert Job(tmp_path, ("c", "d")).made == []
    assert Job(None).made == ["a", "b", "c"]


def test_a_part_is_made_again_where_its_source_or_what_all_are_made_with_has_changed(tmp_path):
    Job(tmp_path)
    moved = {"a": ["a", torch.ones(2)], "b": ["b", torch.ones(2) + 1e-7], "c": ["c", torch.ones(2)]}
    assert Job(tmp_path, made_from=moved).made == ["b"]
    assert Job(tmp_path, made_from=moved).made == []
    assert Job(tmp_path, made_with=("other settings",)).made == ["a", "b", "c"]


def test_a_part_is_made_again_where_the_code_of_its_making_has_changed(tmp_path, monkeypatch):
    source = tmp_path / "saeflow"
    (source / "models").mkdir(parents=True)
    (source / "models/model.py").write_text("x = 1\n")
    (source / "method.py").write_text("y = 1\n")
    (source / "chess").mkdir()
    monkeypatch.setattr(parts, "SOURCE", source)
    expected = {"models/model.py": True, "method.py": True, "chess/player.py": False}
    for file, counts in expected.items():
        code_digest.cache_clear()
        Job(tmp_path / "kept")
        assert Job(tmp_path / "kept").made == []
        (source / file).write_text("x = 2\n")
        code_digest.cache_clear()
        assert bool(Job(tmp_path / "kept").made) == counts, file
    code_digest.cache_clear()


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "other columns"])
def test_a_part_that_is_not_whole_is_made_again(tmp_path, harm):
    Job(tmp_path)
    file = tmp_path / "kind/b.parquet"
    content = bytearray(file.read_bytes())
    match harm:
        case "cut":
            content = content[:-20]
        case "flip":
            content[len(content) // 3] ^= 1
        case "empty":
            content = bytearray()
        case "other columns":
            pl.DataFrame({"x": [1]}).write_parquet(file)
            content = bytearray(file.read_bytes())
    file.write_bytes(content)
    assert Job(tmp_path).made == ["b"]
    assert Job(tmp_path).made == []


def test_what_a_killed_job_had_finished_is_kept(tmp_path):
    """Every part appears whole, the moment it is made."""

    def dies_at_b():
        kept = Parts(tmp_path, "kind", (), "settings")
        for name in NAMES:
            if name == "b":
                raise KeyboardInterrupt
            kept.table(name, SCHEMA, [name, torch.ones(2)], lambda name=name: table(name))

    with pytest.raises(KeyboardInterrupt):
        dies_at_b()
    assert Job(tmp_path).made == ["b", "c"]


def test_digests_tell_values_apart_that_look_alike(tmp_path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("a")
    values = [
        *("a", "1", 1, 1.0, True, None, [], ["a"], [["a"]], ["a", "1"], [["a"], "1"]),
        *({"a": "1"}, {"a": 1}, tmp_path / "file", tmp_path / "folder"),
        *(torch.ones(2), torch.ones(2, 1), torch.ones(2).double(), torch.ones(2).int()),
        *(pl.DataFrame({"a": [1]}), pl.DataFrame({"b": [1]}), pl.DataFrame({"a": [1.0]})),
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(torch.zeros(3)) == digest(torch.zeros(3).numpy())


def test_the_digest_of_a_table_is_that_of_its_content_wherever_it_came_from(tmp_path):
    rows = [{"text": f"{number} of many words", "ids": [number]} for number in range(300)]
    fresh = pl.DataFrame(rows)
    fresh.write_parquet(tmp_path / "table.parquet", row_group_size=90)
    pieces = pl.concat([fresh[:100], fresh[100:]], rechunk=False)
    longer = pl.concat([pl.DataFrame([{"text": "something else, and long", "ids": [1]}]), fresh])
    for same in (pl.read_parquet(tmp_path / "table.parquet"), pieces, longer[1:], fresh.clone()):
        assert digest(same) == digest(fresh)
    assert digest(fresh[::-1]) != digest(fresh)
    assert digest(fresh.rename({"ids": "id"})) != digest(fresh)
