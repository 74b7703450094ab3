"""A study's results by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
import pytest
import torch
import yaml
from notebook_files import HOOK, tiny_sae
from studies import study_config
from tiny_models import save_tiny_model

import saeflow as sf
from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import save_approximation
from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.artifacts import write_sealed_json
from saeflow.config.locations import location
from saeflow.errors import SaeflowError
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.io import save_crosscoder, save_sae
from saeflow.tables import write_table

pytestmark = pytest.mark.usefixtures("one_thread")

PUBLISHED = {"repo": "some/saes", "revision": "0" * 40, "file": "layer_1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a result of every kind, as its workflow leaves them."""
    base = tmp_path_factory.mktemp("study")
    folder = base / "results" / "tiny"
    folder.mkdir(parents=True)
    config = study_config("tiny", {"saes.fetched": {"published": PUBLISHED, "d_sae": 64}})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    save_tiny_model(folder / "models" / "tiny-lm", "llama")
    write_sealed_json(folder / "models" / "tiny-lm.metrics.json", {"loss": 2.5})
    save_sae(folder / "saes" / "main", tiny_sae())
    write_sealed_json(folder / "saes" / "main" / "metrics.json", {"l0": 4.0})
    shape = {"W_enc": (2, 8, 5), "W_dec": (5, 2, 8), "b_enc": (5,), "b_dec": (2, 8), "scale": (2,)}
    weights = {name: torch.ones(size) for name, size in shape.items()}
    save_crosscoder(folder / "saes" / "both", Crosscoder(**weights))
    table = pl.DataFrame({"goal": ["london"], "behaviour": [0.5]})
    write_table(folder / "steering" / "summary.parquet", table)
    write_table(folder / "steering" / "summary.csv", table)
    for internal in ("examples/main/activations/shard-00000", "effects/main/shards/block-0"):
        write_table(folder / f"{internal}.parquet", table)
    vector = SteeringVector(tiny_sae().W_dec[5], {"hook": HOOK, "goal": "london", "method": "sae"})
    save_vector(folder / "steering" / "london" / "sae" / "vector.safetensors", vector)
    effects = Approximation.of(torch.ones(32, 64), torch.ones(64), tiny_sae().W_dec)
    save_approximation(folder / "effects" / "main", effects, {})
    (folder / "figures").mkdir()
    figure = plt.figure(figsize=(1, 1))
    for ending in ("png", "svg"):
        figure.savefig(folder / "figures" / f"pareto.{ending}")
    plt.close(figure)
    table.write_csv(folder / "figures" / "pareto.csv")
    study = read_study(folder / "config.yaml")
    place = location(study, "saes/fetched/cfg.json", lambda path: (base / path).exists())
    save_sae((base / place).parent, tiny_sae())
    return folder


def test_tables_are_frames_by_their_paths_without_what_is_kept_in_parts(root: Path) -> None:
    study = sf.open_study(root)
    assert list(study.tables) == ["steering/summary"]
    assert study.tables["steering/summary"].rows() == [("london", 0.5)]
    assert study.metrics["saes/main/metrics"]["l0"] == 4.0
    assert list(study.metrics) == ["models/tiny-lm.metrics", "saes/main/metrics"]


def test_results_are_read_as_what_they_are(root: Path) -> None:
    study = sf.open_study(root)
    assert study.config.study == "tiny"
    assert list(study.models) == ["tiny-lm"]
    assert study.models["tiny-lm"].n_layers == 3
    assert torch.equal(study.saes["main"].W_dec, tiny_sae().W_dec)
    assert list(study.crosscoders) == ["both"]
    assert study.crosscoders["both"].n_sources == 2
    assert study.vectors["london/sae"].goal == "london"
    assert study.approximators["main"].M.shape == (32, 64)


def test_a_fetched_sae_is_among_the_study_s_own(root: Path) -> None:
    study = sf.open_study(root)
    assert list(study.saes) == ["fetched", "main"]
    assert study.saes["fetched"].d_sae == 64


def test_a_figure_shows_itself_and_has_its_rows(root: Path) -> None:
    figure = sf.open_study(root).figures["pareto"]
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert figure.svg.is_file()
    assert figure.table["goal"].to_list() == ["london"]


def test_names_complete_and_a_wrong_one_is_told_with_those_that_are_there(root: Path) -> None:
    study = sf.open_study(root)
    assert study.tables._ipython_key_completions_() == ["steering/summary"]
    assert isinstance(study.tables, Mapping)
    assert study.tables.get("summary") is None
    with pytest.raises(KeyError) as caught:
        study.tables["summary"]
    assert isinstance(caught.value, SaeflowError)
    assert str(caught.value) == (
        "study: has no 'summary' among its 1 tables; there are steering/summary"
    )
    assert repr(study.tables) == "tables: steering/summary"
    expected = "study tiny; tables: 1, figures: 1, models: 1, SAEs: 2, steering vectors: 1"
    assert repr(study) == expected


def test_a_folder_that_grows_is_looked_up_each_time(root: Path) -> None:
    study = sf.open_study(root)
    path = root / "steering" / "best.parquet"
    write_table(path, pl.DataFrame({"goal": ["london"]}))
    assert "steering/best" in study.tables
    path.unlink()
    assert "steering/best" not in study.tables


def test_a_folder_that_holds_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="no such folder; name a study's"):
        sf.open_study(tmp_path / "absent")
    with pytest.raises(SaeflowError, match="holds no study"):
        sf.open_study(tmp_path)


def test_results_of_a_config_that_cannot_be_read_are_there_all_the_same(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "older"
    save_sae(folder / "saes" / "main", tiny_sae())
    (folder / "config.yaml").write_text("judge: {kind: planted}")
    study = sf.open_study(folder)
    assert list(study.saes) == ["main"]
    with pytest.raises(SaeflowError, match="judge: is not a known key"):
        _ = study.config
