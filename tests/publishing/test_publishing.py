"""What a study publishes comes back as it was; its card says what it is; without a yes nothing
leaves this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from hub_server import TOKEN, Fault, Hub, environment, serving
from huggingface_hub import RepoCard
from steered import D_MODEL, D_SAE, HOOK, tiny_sae, unit_rows
from studies import changed, study_config

from saeflow.analyses import Study
from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import load_approximation, open_effects, save_approximation
from saeflow.analyses.effects.published import import_effects
from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.io import SteeringVector, load_vector, save_vector
from saeflow.artifacts import read_json, sha256, write_json
from saeflow.kinds import check_any_study
from saeflow.provenance import provenance
from saeflow.publishing.contents import without_places
from saeflow.saes.io import load_sae, save_sae

RUN = """
import json, sys
from saeflow.cli.main import app
from saeflow.errors import SaeflowError
ends = []
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, standalone_mode=False)
        ends.append("")
    except SaeflowError as error:
        ends.append(str(error))
print("ENDS" + json.dumps(ends))
"""
STUDY = study_config("to-publish")
GOALS, METHODS = STUDY["steering"]["goals"]["names"], STUDY["steering"]["vectors"]["methods"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study, as the workflow leaves it."""
    root = tmp_path / "results/mine"
    checked = check_any_study(STUDY)
    root.mkdir(parents=True)
    (root / "config.yaml").write_text(yaml.safe_dump(checked.model_dump(mode="json")))
    write_json(root / "provenance.json", provenance())
    M = torch.randn(D_MODEL, D_SAE, generator=torch.Generator().manual_seed(0))
    rows = unit_rows(30)
    torch.save({"features": rows * 7, "effects": rows @ M}, tmp_path / "made.pt")
    (root / "effects/main").mkdir(parents=True)
    import_effects(tmp_path / "made.pt", root / "effects/main/effects.h5", {"hook": HOOK})
    approximation = Approximation.of(M, torch.zeros(D_SAE), tiny_sae().W_dec)
    save_approximation(root / "effects/main", approximation, {"hook": HOOK})
    write_json(root / "effects/main/metrics.json", {"r2": 0.87, "r2_median": 0.5})
    save_sae(root / "saes/main", tiny_sae())
    for number, goal in enumerate(GOALS):
        for method in METHODS:
            path = root / f"steering/{goal}/{method}/vector.safetensors"
            path.parent.mkdir(parents=True)
            save_vector(
                path, SteeringVector(unit_rows(1, seed=number)[0], {"hook": HOOK, "goal": goal})
            )
    best = {"goal": ["animals", "average"], "method": ["sae_ts"] * 2, "product": [0.3, 0.4]}
    pl.DataFrame({**best, "product_low": [0.2, 0.3], "product_high": [0.4, 0.5]}).write_parquet(
        root / "steering/best.parquet"
    )
    return root


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


def saeflow(
    hub: Hub, home: Path, *commands: list[Any], token: str = TOKEN
) -> tuple[list[str], str]:
    """What every command ends with, a complaint or nothing, and what they print; one process for
    all."""
    arguments = json.dumps([[str(part) for part in command] for command in commands])
    variables = {**os.environ, **environment(hub, home, HF_TOKEN=token)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, arguments], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    printed, _, ends = done.stdout.rpartition("ENDS")
    return json.loads(ends), printed


def fetching(kind: str, file: str, *options: Any) -> list[Any]:
    return [
        "fetch",
        kind,
        *options,
        "--published",
        json.dumps({"repo": "me/mine", "file": file}),
        "--key",
        "this",
    ]


def test_without_a_yes_nothing_is_asked_and_the_card_tells_all_but_this_machine(
    hub: Hub, study: Path, tmp_path: Path
) -> None:
    ends, printed = saeflow(hub, tmp_path, ["publish", study])
    assert ends == [""]
    assert hub.asked == []
    record = read_json(study / "publish/record.json")
    assert record["commit"] is None
    listed = {
        line.split()[-1]: int(line.split()[0].replace(",", ""))
        for line in printed.partition("  bytes in ")[0].splitlines()[:-1]
    }
    assert listed == {name: file["bytes"] for name, file in record["files"].items()}
    assert "nothing was uploaded; --yes uploads to the model repository me/mine" in printed

    text = (study / "publish/README.md").read_text()
    data = RepoCard(text).data.to_dict()
    assert data["license"] == "mit"
    assert data["base_model"] == "some/model"
    assert "saeflow" in data["tags"]
    for words in (
        "`effects/main/effects.h5`",
        "| R² | 0.870 |",
        "| sae_ts | 0.400 | 0.300 – 0.500 |",
        HOOK,
    ):
        assert words in text
    for file in (text, (study / "publish/config.yaml").read_text()):
        assert "/somewhere/private" not in file
        assert "10.1.2.3" not in file
        assert "stories.jsonl" in file
    own, use = tmp_path / "own.yaml", tmp_path / "use.yaml"
    own.write_text(yaml.safe_dump(STUDY))
    use.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    merged = read_study(own, use)
    assert merged.effects.published
    assert merged.effects.published.file == "effects/main/effects.h5"


def test_no_path_of_this_machine_is_published_wherever_the_config_names_one() -> None:
    private = "/home/somebody/private"
    given = {
        "models": [{"name": "other", "path": f"{private}/model"}],
        "corpus": {"kind": "text", "path": [f"{private}/text.jsonl", "own.jsonl"]},
        "saes.imported": {"path": f"{private}/sae"},
        "saes.begun": {"train": {"init_from": f"{private}/weights"}},
        "decomposition": {"directions": {"files": {"apart": f"{private}/apart.safetensors"}}},
        "examples": {},
        "logit_lens": {"token_sets": {"files": [f"{private}/sets.yaml"]}},
        "effects": {"vectors": {"kind": "file", "path": f"{private}/vectors.safetensors"}},
        "steering.goals.directory": f"{private}/goals",
    }
    study = check_any_study(changed(STUDY, given))
    assert isinstance(study, Study)
    assert study.model_dump_json().count(private) == 8
    bare = without_places(study).model_dump()
    assert private not in json.dumps(bare)
    assert bare["models"][0]["path"] == "model"
    assert bare["corpus"]["path"] == ["text.jsonl", "own.jsonl"]
    assert bare["decomposition"]["directions"]["files"] == {"apart": "apart.safetensors"}
    assert bare["logit_lens"]["token_sets"]["files"] == ["sets.yaml"]
    assert check_any_study(bare).model_dump() == bare


def test_what_is_uploaded_comes_back_as_it_was(hub: Hub, study: Path, tmp_path: Path) -> None:
    assert saeflow(hub, tmp_path, ["publish", study, "--yes"])[0] == [""]
    repository = hub.repositories["models/me/mine"]
    record = read_json(study / "publish/record.json")
    assert record["commit"] == repository.commit
    assert set(repository.files) == set(record["files"])
    assert sum(request.path.endswith("/commit/main") for request in hub.asked) == 1

    back = tmp_path / "back"
    map_file = "effects/main/approximator.safetensors"
    vector_file = "steering/{goal}/{method}/vector.safetensors"
    effects = back / "effects/main/effects.h5"
    on_map = ("--hook", HOOK, "--sae", back / "saes/main", "--output", back / "effects/main")
    of_sea = ("--hook", HOOK, "--goal", "sea", "--output", back / "steering/sea")
    ends, _ = saeflow(
        hub,
        tmp_path,
        fetching("effects", "effects/main/effects.h5", "--hook", HOOK, "--output", effects),
        fetching("sae", "saes/main", "--output", back / "saes/main", "--d-sae", D_SAE),
        fetching("approximator", map_file, *on_map),
        fetching("vectors", vector_file, *METHODS, *of_sea),
    )
    assert ends == [""] * 4
    assert sha256(effects) == sha256(study / "effects/main/effects.h5")
    with open_effects(effects) as table:
        assert table.effects.shape == (30, D_SAE)
    assert torch.equal(load_sae(back / "saes/main").W_enc, tiny_sae().W_enc)
    assert load_sae(back / "saes/main").metadata["published"]["commit"] == repository.commit
    folders = (back / "effects/main", study / "effects/main")
    pairs = zip(*map(load_approximation, folders), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    vector = load_vector(back / "steering/sea/caa/vector.safetensors")
    assert torch.equal(vector.vector, unit_rows(1, seed=1)[0])
    assert vector.metadata["published"]["file"] == "steering/sea/caa/vector.safetensors"
    records = read_json(back / "steering/sea/published.json")
    assert {record["commit"] for record in records.values()} == {repository.commit}


def test_what_is_for_another_hook_or_sae_is_refused_and_leaves_nothing(
    hub: Hub, study: Path, tmp_path: Path
) -> None:
    other, never = "blocks.2.hook_resid_post", tmp_path / "never"
    ends, _ = saeflow(
        hub,
        tmp_path,
        ["publish", study, "--yes"],
        fetching(
            "effects", "effects/main/effects.h5", "--hook", other, "--output", never / "effects.h5"
        ),
        fetching(
            *(
                "vectors",
                "steering/{goal}/{method}/vector.safetensors",
                "caa",
                "--goal",
                "sea",
                "--hook",
                other,
            ),
            *("--output", never),
        ),
        fetching("sae", "saes/main", "--d-sae", 99, "--output", never),
        fetching("sae", "effects", "--output", never),
    )
    assert ends[0] == ""
    assert ends[1] == f"this: is of {HOOK}, and the study's hook is {other}; make them agree"
    assert ends[2].startswith(f"this: steering/sea/caa/vector.safetensors is a vector of {HOOK}")
    assert ends[3] == f"this: the SAE of me/mine@main has {D_SAE} latents, not 99; correct d_sae"
    assert "is no SAE in a known format (saelens: cfg.json + sae_weights.safetensors; " in ends[4]
    assert [file.name for file in never.rglob("*") if file.name != "published.json"] == []


def test_an_upload_that_cannot_be_is_told(hub: Hub, study: Path, tmp_path: Path) -> None:
    hub.fail("/commit/", Fault(403))
    (refused,), _ = saeflow(hub, tmp_path, ["publish", study, "--yes"], token="hf_another")
    assert refused == (
        f"publish: {hub.url} refuses me/mine@main to this token (401); set HF_TOKEN to one that "
        "may do this, or unset it; it says: Invalid credentials in Authorization header"
    )
    (study / "effects/main/effects.h5").unlink()
    ends, printed = saeflow(
        hub, tmp_path, ["publish", study, "--yes"], ["publish", study, "--repo", "me/other"]
    )
    assert "(403); set HF_TOKEN to one that may do this" in ends[0]
    assert ends[1] == ""
    _, _, left_out = printed.partition("left out, as the study fetched or did not make them: ")
    assert "effects/*/effects.h5" in left_out
    record = read_json(study / "publish/record.json")
    assert (record["repo"], record["commit"]) == ("me/other", None)
