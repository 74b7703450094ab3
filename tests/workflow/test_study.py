"""The way from the corpus to the report, and what is run again when something changed."""

import html.parser
import os
import random
import shutil
import signal
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from checkout import ROOT
from snakemake_runs import digests, figures
from studies import COMPLETIONS, GOALS, METHODS
from tiny_models import save_tiny_model


def test_every_stage_runs_and_its_files_are_as_designed(finished):
    results = finished.results
    for path in [
        "config.yaml",
        "provenance.json",
        "corpus/eval.safetensors",
        "models/tiny-lm/model.safetensors",
        "models/tiny-lm/tokenizer.json",
        "activations/tiny-lm/blocks.0.hook_resid_post/manifest.json",
        "saes/main/cfg.json",
        "saes/main/metrics.json",
        "effects/main/effects.h5",
        "effects/main/metrics.json",
        "steering/london/sae_ts/vector.safetensors",
        "steering/love/side_effects.parquet",
        "steering/summary.csv",
        "steering/best.parquet",
        "report/index.html",
    ]:
        assert (results / path).is_file(), path
    drawn = {file.stem for file in (results / "figures").glob("*.png")}
    assert drawn == set(figures())
    summary = pl.read_parquet(results / "steering/summary.parquet")
    cells = len(GOALS) * len(METHODS) * len(COMPLETIONS["scales"])
    assert summary.filter(split="all").height == cells
    assert summary.filter(split="all")["n"].to_list() == [8] * cells


def test_at_scale_zero_every_method_says_the_same(finished):
    texts = [
        pl.read_parquet(file).filter(scale_index=0).sort("prompt", "sample")["text"].to_list()
        for file in sorted(finished.results.glob("steering/*/*/completions.parquet"))
    ]
    assert len(texts) == 6
    assert all(text == texts[0] for text in texts)


def test_the_report_refers_to_nothing_outside_its_folder(finished):
    pages = sorted((finished.results / "report").glob("*.html"))
    assert {"index.html", "goals.html", "goal-london.html", "goal-love.html", "saes.html"} <= {
        page.name for page in pages
    }
    outside = []

    class Links(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            wanted = {"src", "srcset", "data", "poster"} | ({"href"} if tag != "a" else set())
            outside.extend(value for name, value in attributes if name in wanted and value)

    for page in pages:
        outside.clear()
        Links().feed(page.read_text())
        assert outside
        for link in outside:
            assert "//" not in link
            assert link.startswith("data:") or (page.parent / link).resolve().is_relative_to(
                page.parent
            )
            assert link.startswith("data:") or (page.parent / link).is_file()


def test_snakemake_s_own_report_holds_every_figure_and_table_with_its_caption(copied):
    page = copied.directory / "snakemake.html"
    done = copied.attempt(args=("--report", page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert all(file.name in text for file in (copied.results / "figures").glob("*.png"))
    assert text.count("Along a dashed curve the product is the same.</p>") == 1
    for name, shown in [
        ("best", "The last rows average over goals"),
        ("summary", "on all completions and on either part of them"),
        ("comparisons", "the p-value of a permutation test"),
        ("matched", "Behaviour where coherence has fallen"),
        ("three_way", "Concept, instruction and fluency"),
    ]:
        assert f"{name}.csv" in text
        assert text.count(shown) == 1


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(finished, workflow):
    chance = random.Random(0)
    for _ in range(4):
        process = workflow.start()
        time.sleep(chance.uniform(6, 14))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(
            workflow.directory / ".snakemake/locks", ignore_errors=True
        )  # what --unlock does
    workflow.run()
    assert digests(workflow) == digests(finished)


def test_a_wrong_config_is_one_line_before_any_job(workflow):
    done = workflow.attempt(config={"steering.vectors.method": ["caa"]})
    assert done.returncode == 1
    complaints = [line for line in done.stderr.splitlines() if "steering.vectors.method" in line]
    assert len(complaints) == 1
    assert "is not a known key" in complaints[0]
    assert "Traceback" not in done.stderr
    assert not (workflow.directory / "results").exists()


@pytest.mark.parametrize(
    "study", sorted(file.name for file in (ROOT / "workflow/studies").glob("*.yaml"))
)
def test_every_study_can_be_planned(study, workflow, tmp_path):
    model = save_tiny_model(
        tmp_path / "model", "llama", hidden_size=64, max_position_embeddings=128
    )
    (tmp_path / "text.jsonl").write_text('{"text": "once"}\n')
    workflow.overrides, workflow.base = {}, ROOT / "workflow/studies" / study
    (tmp_path / "games.pgn").touch()
    given = {"MODEL": model, "CORPUS": tmp_path / "text.jsonl", "PGN": tmp_path / "games.pgn"}
    env = {f"SAEFLOW_{name}": str(path) for name, path in given.items()}
    env["OPENAI_API_KEY"] = "none"
    jobs = workflow.run(args=("--cores", "2", "--dry-run"), env=env)
    config = yaml.safe_load(workflow.base.read_text())
    if config.get("kind") == "chess":
        assert jobs["find_transitions"] == 1
        assert jobs["intervene"] > 0
    else:
        assert jobs["write_report"] == 1
        assert jobs.get("summarise_scores") == (1 if config.get("steering") else None)


def test_the_workflow_is_listed_with_logs_and_environments():
    for file in Path(ROOT, "rules").glob("*.smk"):
        rules = file.read_text().split("\nrule ")[1:] + file.read_text().split("\n    rule ")[1:]
        for rule in rules:
            name = rule.partition(":")[0]
            assert all(f"{word}:" in rule for word in ("output", "log", "conda", "benchmark")), (
                file.name,
                name,
            )
