"""What the rules call, from files to tables: words are read, latents are found."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import yaml
from planted_circle import HOOK, NULLS, POINTS
from planted_latents import LATENTS, planted_saes
from tiny_models import save_tiny_model
from typer.testing import CliRunner

from saeflow.analyses.geometry.command import app
from saeflow.analyses.geometry.latent_tables import SCHEMAS
from saeflow.saes.io import save_sae


def test_the_commands_read_words_and_latents_and_write_every_table(tmp_path: Path) -> None:
    opened = planted_saes(tmp_path / "examples")
    model = save_tiny_model(tmp_path / "model", "llama")
    for each in opened:
        save_sae(tmp_path / each.name, each.sae)
    sets = {"sets": {"animals": {"words": ["cat", "dog", "sat"]}}}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump(sets))
    asked = LATENTS.model_dump()
    asked["groups"]["animals"] = {"token_set": "animals"}
    asked["groups"]["given"] = {"words": ["tree"], "latents": {"wide": [5, 4, 3]}}
    settings = ["--settings", POINTS.model_dump_json(), "--seed", "0"]
    saes = [word for each in opened for word in ("--sae", str(tmp_path / each.name))]
    saes += [word for each in opened for word in ("--place", f"{each.name}={HOOK}")]
    read = ["read", "--model", str(model), "--hook", HOOK, *settings, *saes]
    read += ["--output", str(tmp_path / "activations.safetensors")]
    find = ["latents", "--activations", str(tmp_path / "activations.safetensors"), *settings, *saes]
    find += [word for each in opened for word in ("--examples", str(each.examples))]
    find += ["--asked", type(LATENTS).model_validate(asked).model_dump_json()]
    find += ["--nulls", NULLS.model_dump_json(), "--token-sets", str(tmp_path / "sets.yaml")]
    find += ["--output", str(tmp_path / "tables")]
    for words in (read, find):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    tables = {name: pl.read_parquet(tmp_path / f"tables/{name}.parquet") for name in SCHEMAS}
    for name, table in tables.items():
        assert table.schema == pl.Schema(SCHEMAS[name])
    groups = tables["latent_groups"].filter(sae="wide")
    counts = dict(groups.select("group", "latents").iter_rows())
    assert counts == {"ring": 7, "pair": 2, "animals": 3, "given": 3}
    given = tables["latents"].filter(group="given", sae="wide")
    assert given["latent"].to_list() == [3, 4, 5]
    assert given["share"].to_list() == [0, 0, 1]
