"""An SAE of another library in a study: counted before anything is read, and imported by its
rule."""

import shutil

import pytest
import torch
from checkout import ROOT

from saeflow.saes.io import import_sae, load_sae

TRANSCODER = "sparsify-transcode_skip"
CASES = [
    "gemma_scope-res",
    "llama_scope-2025",
    "dictionary_learning-BatchTopKSAE",
    "sparsify-by_expansion",
]


@pytest.fixture
def folders(tmp_path):
    """Folders whose names say nothing of the format."""
    for case in [*CASES, TRANSCODER]:
        shutil.copytree(ROOT / "tests/data/saes" / case, tmp_path / case.split("-")[1])
    return {case: tmp_path / case.split("-")[1] for case in [*CASES, TRANSCODER]}


def six_wide(folder):
    """What a study says of a model that is six wide, as the SAEs are: enough for its config."""
    place = folder / "six-wide"
    place.mkdir()
    (place / "config.json").write_text('{"hidden_size": 6, "num_hidden_layers": 4}')
    (place / "tokenizer.json").write_text("{}")
    (place / "model.safetensors").touch()
    (folder / "stories.txt").write_text("Once upon a time.")
    return {
        "model": {"name": "six-wide", "path": str(place), "train": None},
        "corpus": {"kind": "text", "path": str(folder / "stories.txt")},
        "steering": None,
    }


@pytest.mark.slow
def test_a_study_imports_saes_of_any_library(workflow, folders, tmp_path):
    saes = {case.split("-")[0]: {"path": str(folders[case])} for case in CASES}
    saes["sparsify"]["format"] = "sparsify"
    saes["llama_scope"]["hook"] = (
        "blocks.3.hook_resid_post"  # where it says itself that it was trained
    )
    saes["mlp"] = {
        "path": str(folders[TRANSCODER]),
        "target": "blocks.0.hook_mlp_out",
        "hook": "blocks.0.hook_resid_mid",
    }
    of_one_file = import_sae(folders["gemma_scope-res"])
    file = tmp_path / "several" / "5.pt"
    file.parent.mkdir()
    weights = {"W_enc": of_one_file.W_enc, "W_dec": of_one_file.W_dec}
    torch.save(weights, file)
    torch.save(weights, file.with_name("6.pt"))
    saes["one_file"] = {"path": str(file), "k": 3, "normalize_activations": "layer_norm"}
    config = {"saes": saes, "effects.sae": "gemma_scope", **six_wide(tmp_path)}
    config["effects.vectors.block_size"] = 5
    wanted = [f"results/tiny/saes/{name}/cfg.json" for name in saes]
    jobs = workflow.run(*wanted, config=config)
    assert jobs["import_sae"] == len(CASES) + 2
    one_file = load_sae(workflow.results / "saes/one_file")
    assert (one_file.k, one_file.per_token) == (3, "layer_norm")
    mlp = load_sae(workflow.results / "saes/mlp")
    assert (mlp.is_transcoder, mlp.written_hook("blocks.0.hook_resid_mid")) == (
        True,
        "blocks.0.hook_mlp_out",
    )
    for case in CASES:
        folder = folders[case]
        imported, expected = (
            load_sae(workflow.results / "saes" / case.split("-")[0]),
            import_sae(folder),
        )
        assert (imported.architecture, imported.k) == (expected.architecture, expected.k)
        assert imported.W_enc.equal(expected.W_enc)

    planned = workflow.run("effects", config=config, args=("--dry-run", "--cores", "1"))
    assert planned["measure_effects"] == 3  # twelve latents, five vectors to a block


def test_an_sae_of_another_hook_is_one_sentence_of_its_job(workflow, folders, tmp_path):
    saes = {"other": {"path": str(folders["llama_scope-2025"])}}
    config = {"saes": saes, "effects.sae": "other", **six_wide(tmp_path)}
    assert workflow.attempt("results/tiny/saes/other/cfg.json", config=config).returncode == 1
    log = (workflow.results / "logs/import_sae/other.log").read_text()
    assert log.startswith(
        "saeflow: sae: reads blocks.3.hook_resid_post, not blocks.0.hook_resid_post; correct its "
    )
    assert log.count("\n") == 1


def test_an_sae_that_is_not_there_is_one_sentence_before_any_job(workflow, tmp_path):
    config = {"saes": {"other": {"path": str(tmp_path / "nowhere")}}, "steering.sae": "other"}
    done = workflow.attempt("effects", config=config, args=("--dry-run", "--cores", "1"))
    assert done.returncode == 1
    assert f"saes.other.path: {tmp_path / 'nowhere'}: no such folder" in done.stdout + done.stderr
