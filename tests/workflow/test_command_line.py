"""The command line on the files of a finished study."""

import json

import polars as pl
import pytest
import yaml
from snakemake_runs import saeflow


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("corpus/eval.safetensors", "tokens  [128, 32]  I32"),
        ("models/tiny-lm", "model.safetensors"),
        ("models/tiny-lm.metrics.json", '"entropy"'),
        (
            "activations/tiny-lm/blocks.0.hook_resid_post/shard-00000.parquet",
            "activation  fixed_size_binary[128]",
        ),
        ("activations/tiny-lm/blocks.0.hook_resid_post", "mean_norm"),
        ("saes/main/sae_weights.safetensors", "W_dec  [48, 32]  F32"),
        ("effects/main/effects.h5", "effects  [48, 48]  float32"),
        ("steering/love/sae_ts/vector.safetensors", "vector  [32]  F32"),
        ("steering/love/caa/completions.parquet", "24 rows"),
        ("steering/best.csv", "love,caa"),
        ("config.yaml", "study: tiny"),
    ],
)
def test_show_tells_what_is_in_an_artifact(finished, file, says):
    done = saeflow("show", finished.results / file)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "nowhere.h5"], "nowhere.h5: no such file"),
        (["show", "README.md"], "files that end in '.md' are not artifacts"),
        (["plan", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (
            ["steer", "--vector", "nowhere.safetensors", "--scale", "1", "I"],
            "no such steering vector",
        ),
        (["sae", "import", "--path", "workflow", "--output", "x"], "cfg.json"),
    ],
)
def test_a_mistake_is_one_sentence_without_a_traceback(arguments, says):
    done = saeflow(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("saeflow: ")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda place: place.mkdir(), "is a folder, and a file is needed"),
        (lambda place: place.symlink_to(place), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_told_where_one_is_read(tmp_path, change, says):
    place = tmp_path / "blocks.safetensors"
    change(place)
    line = ["model", "train", "--corpus", place, "--settings", "{}", "--seed", 0]
    done = saeflow(*line, "--checkpoint", tmp_path / "c.pt", "--output", tmp_path / "model")
    assert done.returncode == 1
    assert done.stderr.startswith(f"saeflow: {place}: ")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_file_is_named(finished, tmp_path):
    whole = (finished.results / "effects/main/effects.h5").read_bytes()
    damaged = tmp_path / "effects.h5"
    damaged.write_bytes(whole[: len(whole) // 2])
    done = saeflow("show", damaged)
    assert done.returncode == 1
    assert f"{damaged}: is damaged" in done.stderr


def test_steer_shows_unsteered_and_steered_text_of_the_same_noise(finished):
    vector = finished.results / "steering/love/caa/vector.safetensors"
    arguments = ["steer", "--vector", vector, "--samples", "2", "--new-tokens", "6", "I think"]
    none, steered = saeflow(*arguments, "--scale", "0"), saeflow(*arguments, "--scale", "50")
    assert none.returncode == steered.returncode == 0, none.stderr + steered.stderr
    unsteered = none.stdout.splitlines()
    assert unsteered[1:3] == unsteered[4:6]
    assert steered.stdout.splitlines()[1:3] == unsteered[1:3]
    assert steered.stdout.splitlines()[4:6] != unsteered[1:3]


def test_steer_takes_a_goal_or_a_latent_and_scales_in_the_unit_of_the_study(finished):
    asked = ["steer", "--study", finished.results, "--samples", "1", "--new-tokens", "4", "I think"]
    chosen = saeflow(*asked, "--goal", "love", "--method", "caa")
    assert chosen.returncode == 0, chosen.stderr
    best = pl.read_parquet(finished.results / "steering/best.parquet")
    (row,) = best.filter(goal="love", method="caa").iter_rows(named=True)
    config = yaml.safe_load((finished.results / "config.yaml").read_text())
    multiple = config["steering"]["completions"]["scales"][row["scale_index"]]
    folder = finished.results / "activations/tiny-lm" / config["hook"]
    norm = json.loads((folder / "manifest.json").read_text())["mean_norm"]
    assert f"love by caa, scale {multiple:g} × {norm:.3g}, the mean norm" in chosen.stdout
    assert row["scale"] == pytest.approx(multiple * norm)
    latent = saeflow(*asked, "--latent", "3", "--scale", "0.5")
    assert "latent 3 by sae, scale 0.5 ×" in latent.stdout, latent.stderr
    unscaled = saeflow(*asked, "--latent", "3")
    assert "no scale was chosen for latent 3; give --scale" in unscaled.stderr


def test_fires_lists_the_latents_of_a_text_with_the_token_that_has_most(finished):
    done = saeflow("fires", "--study", finished.results, "--top", "3", "I think that I love you")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["latent", "largest", "tokens", "at"]
    largest = [float(row.split()[1]) for row in rows]
    assert largest == sorted(largest, reverse=True)
    assert all(value > 0 for value in largest)
    empty = saeflow("fires", "--study", finished.results, "")
    assert empty.stderr.splitlines() == ["saeflow: fires: the text has no token; give some words"]
    assert empty.returncode == 1


def test_plan_counts_the_jobs_that_the_workflow_runs(finished):
    done = saeflow("plan", "config.yaml", finished.directory / "study.yaml")
    assert done.returncode == 0, done.stderr
    total = next(line for line in done.stdout.splitlines() if line.startswith("total"))
    assert (
        int(total.split()[1]) == sum(finished.jobs.values()) - 2
    )  # without the target and the record of the study
    assert "everything it reads is there" in done.stdout


def test_help_lists_every_stage():
    done = saeflow("--help")
    assert all(
        f"{name} " in done.stdout
        for name in (
            "effects",
            "steering",
            "logit_lens",
            "judge",
            "figures",
            "plan",
            "show",
            "steer",
        )
    )
