"""The command line on the files of a finished study."""

import pytest
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
    none, some = saeflow(*arguments, "--scale", "0"), saeflow(*arguments, "--scale", "50")
    assert none.returncode == some.returncode == 0, none.stderr + some.stderr
    unsteered = none.stdout.splitlines()
    assert unsteered[1:3] == unsteered[4:6]
    assert some.stdout.splitlines()[1:3] == unsteered[1:3]
    assert some.stdout.splitlines()[4:6] != unsteered[1:3]


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
