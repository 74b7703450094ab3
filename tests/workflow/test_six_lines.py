"""A study of a model, a text, a hook and an SAE, and no analysis."""

import json
import random

import pytest
from snakemake_runs import Workflow
from studies import study_config
from tiny_models import save_tiny_model, tiny_tokenizer

from saeflow.saes.io import load_sae


@pytest.mark.slow
def test_a_study_that_asks_for_no_analysis_gives_the_sae_its_metrics_and_a_report(tmp_path):
    draw, words = random.Random(0), list(tiny_tokenizer().get_vocab())
    texts = [" ".join(draw.choices(words, k=200)) for _ in range(120)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model = save_tiny_model(tmp_path / "model", "llama")
    study = Workflow(tmp_path / "work", study_config("six-lines"), base=None)
    study.directory.mkdir()
    env = {"SAEFLOW_MODEL": str(model), "SAEFLOW_CORPUS": str(corpus)}

    jobs = study.run(env=env)
    assert jobs["train_sae"] == jobs["evaluate_sae"] == jobs["write_report"] == 1
    assert not {"find_examples", "measure_effects", "choose_latents"} & set(jobs)
    assert load_sae(study.results / "saes/main").d_sae == 48
    assert json.loads((study.results / "saes/main/metrics.json").read_text())["l0"] <= 4
    for file in ("saes/summary.parquet", "report/index.html", "report/saes.html"):
        assert (study.results / file).is_file(), file
    assert study.run(env=env) == {}
