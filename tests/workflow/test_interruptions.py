"""What befalls files between two jobs: a damaged one is found and made again, a full disk is told
and overcome."""

import fcntl
import shutil

import pytest
from small_disk import small_disk
from snakemake_runs import digests

# A file that is damaged, what is deleted so that it is read, and the jobs that follow once it has
# been found.
DAMAGED = {
    "steering/love/caa/completions.parquet": (
        "steering/love/caa/scores.parquet",
        {"complete_prompts": 1, "judge_completions": 1},
    ),
    "effects/main/effects.h5": (
        "effects/main/metrics.json",
        {"merge_effects": 1, "fit_approximator": 1},
    ),
    "corpus/eval.safetensors": (
        "effects/main/baseline.safetensors",
        {"write_corpus": 1, "measure_baseline": 1},
    ),
}


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[] if file.endswith(".parquet") else pytest.mark.slow)
        for file in DAMAGED
    ],
)
def test_a_flipped_byte_is_found_by_the_next_job_and_the_file_is_made_again(file, finished, copied):
    wanted, jobs = DAMAGED[file]
    damaged = copied.results / file
    whole = bytearray(damaged.read_bytes())
    whole[len(whole) // 2] ^= 1
    damaged.write_bytes(whole)
    (copied.results / wanted).unlink()
    failed = copied.attempt(f"results/tiny/{wanted}")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert (
        f"results/tiny/{file}: is damaged (its checksum differs); {damaged.name} is removed, start "
        "again" in said
    )
    assert "Traceback" not in said
    assert copied.run(f"results/tiny/{wanted}") == jobs
    assert digests(copied) == digests(finished)


@pytest.mark.slow
def test_a_model_with_a_flipped_byte_is_refused_and_made_again(finished, copied):
    weights = copied.results / "models/tiny-lm/model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[len(whole) // 2] ^= 1
    weights.write_bytes(whole)
    (copied.results / "steering/love/caa/completions.parquet").unlink()
    failed = copied.attempt("results/tiny/steering/love/caa/completions.parquet")
    assert failed.returncode == 1
    said = failed.stdout + failed.stderr
    assert (
        "model.safetensors: has changed; model.safetensors and tiny-lm.checksums.json are removed, "
        "start" in said
    )
    assert copied.run("results/tiny/models/tiny-lm.checksums.json") == {"train_model": 1}
    assert copied.run("results/tiny/steering/love/caa/completions.parquet") == {
        "complete_prompts": 1
    }
    assert digests(copied) == digests(finished)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_sentence_and_space_lets_it_go_on(finished, copied):
    folder = copied.results / "activations"
    shutil.rmtree(folder)
    with small_disk(folder, kilobytes=4096) as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(3_600_000))
        failed = copied.attempt("activations")
        said = failed.stdout + failed.stderr
        assert failed.returncode == 1
        assert "the disk is full; make space and start again, finished files are kept" in said
        assert "Traceback" not in said
        assert [file for file in disk.rglob("*") if file.is_file()] == [filler]
        filler.unlink()
        jobs = copied.run("activations")
        assert jobs == {"activations": 1, "cache_activations": 2, "gather_activations": 1}
        assert digests(copied) == digests(finished)


def test_a_second_snakemake_is_refused_where_a_link_makes_one_folder_of_results_of_two(
    workflow, tmp_path
):
    real = tmp_path / "elsewhere"
    real.mkdir()
    (workflow.directory / "results").symlink_to(real)
    workflow.run("results/tiny/config.yaml")
    (real / "tiny/config.yaml").unlink()
    with open(real / "tiny/.claim", "a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)  # as a Snakemake does that works elsewhere
        refused = workflow.attempt("results/tiny/config.yaml")
    assert refused.returncode == 1
    assert f"{real}/tiny: another Snakemake works on this study" in refused.stdout + refused.stderr
    assert workflow.run("results/tiny/config.yaml") == {"record_study": 1}


@pytest.mark.parametrize("folder", ["results/tiny/steering", "results/tiny", "results/tiny/models"])
def test_what_lies_in_the_place_of_a_folder_is_named_and_left_alone(workflow, folder):
    place = workflow.directory / folder
    place.parent.mkdir(parents=True)
    place.write_text("of the user")
    failed = workflow.attempt("results/tiny/config.yaml")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert f"{folder}: is no folder" in said
    assert "Traceback" not in said
    assert place.read_text() == "of the user"


def test_results_that_cannot_be_written_are_told_in_one_sentence(workflow):
    (workflow.directory / "results").symlink_to("/proc")  # nobody makes folders there, nor root
    failed = workflow.attempt("results/tiny/config.yaml")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert "/proc/tiny: cannot be written (" in said
    assert "work elsewhere with --directory" in said
    assert "Traceback" not in said
