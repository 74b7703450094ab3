"""An SAE of another library in a study: counted before anything is read, and imported by its rule."""

import shutil

import pytest
from conftest import ROOT

from saeflow.saes.io import import_sae, load_sae

CASES = ["gemma_scope-res", "llama_scope-2025", "dictionary_learning-BatchTopKSAE", "sparsify-by_expansion"]


@pytest.fixture
def folders(tmp_path):
    """Folders whose names say nothing of the format."""
    for case in CASES:
        shutil.copytree(ROOT / "tests/data/saes" / case, tmp_path / case.split("-")[1])
    return {case: tmp_path / case.split("-")[1] for case in CASES}


def test_a_study_imports_saes_of_any_library(workflow, folders):
    saes = {case.split("-")[0]: {"path": str(folder)} for case, folder in folders.items()}
    saes["sparsify"]["format"] = "sparsify"
    config = {"saes": saes, "steering": {**workflow.overrides["steering"], "sae": "gemma_scope"}}
    config["effects"] = {**workflow.overrides["effects"], "block_size": 5}
    wanted = [f"results/tiny/saes/{name}/cfg.json" for name in saes]
    jobs = workflow.run(*wanted, config=config)
    assert jobs["import_sae"] == len(CASES)
    for case, folder in folders.items():
        imported, expected = load_sae(workflow.results / "saes" / case.split("-")[0]), import_sae(folder)
        assert (imported.architecture, imported.k) == (expected.architecture, expected.k)
        assert imported.W_enc.equal(expected.W_enc)

    planned = workflow.run("effects", config=config, args=("--dry-run", "--cores", "1"))
    assert planned["measure_effects"] == 3  # twelve latents, five vectors to a block


def test_an_sae_that_is_not_there_is_one_sentence_before_any_job(workflow, tmp_path):
    steering = {**workflow.overrides["steering"], "sae": "other"}
    config = {"saes": {"other": {"path": str(tmp_path / "nowhere")}}, "steering": steering}
    done = workflow.attempt("effects", config=config, args=("--dry-run", "--cores", "1"))
    assert done.returncode == 1
    assert f"saes.other.path: {tmp_path / 'nowhere'}: no such folder" in done.stdout + done.stderr
