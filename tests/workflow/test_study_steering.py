"""What a study may ask of steering beyond vectors and scores."""

import polars as pl
import pytest
import yaml

QUESTIONS = [
    {"question": "The sea", "answer": "was calm", "others": ["was a cat", "ran", "of the"]},
    {"question": "Who cried?", "answer": "Anna", "others": ["the box", "London"]},
]


@pytest.mark.slow
def test_capability_is_measured_by_goal_and_again_where_questions_change(copied):
    file = copied.directory / "mine.yaml"
    file.write_text(yaml.safe_dump({"questions": QUESTIONS}))
    config = {"steering.capability": {"tokens": 256, "questions": "mine.yaml"}}
    jobs = copied.run("steering", config=config)
    assert jobs == {"measure_capability": 2, "summarise_scores": 1, "steering": 1}
    summary = pl.read_parquet(copied.results / "steering/summary.parquet")
    assert summary.filter(pl.col("scale") == 0)["text_loss_increase"].to_list() == [0.0] * 18
    assert summary["choice_accuracy"].is_between(0, 1).all()
    assert copied.run("steering", config=config) == {}
    file.write_text(yaml.safe_dump({"questions": QUESTIONS[:1]}))
    jobs = copied.run("steering", config=config)
    assert jobs == {"measure_capability": 2, "summarise_scores": 1, "steering": 1}
    file.write_text(yaml.safe_dump({"questions": [{"question": "Who?", "answer": "I"}]}))
    refused = copied.attempt("steering", config=config)
    assert refused.returncode == 1
    assert "questions.0.others" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.slow
def test_methods_in_words_stand_beside_vectors_in_all_tables(copied):
    config = {"steering.prompting": {"methods": ["few_shot"], "examples": 1}}
    jobs = copied.run("steering", config=config)
    assert jobs == {
        "complete_in_words": 2,
        "judge_completions": 2,
        "measure_divergence": 2,
        "summarise_scores": 1,
        "steering": 1,
    }
    best = pl.read_parquet(copied.results / "steering/best.parquet")
    own = best.filter(pl.col("method") == "few_shot")
    assert own["goal"].to_list() == ["london", "love", "average"]
    assert own["scale"].null_count() == 3
    assert own["unsteered_product"].null_count() == 0
    comparisons = pl.read_parquet(copied.results / "steering/comparisons.parquet")
    assert set(comparisons.filter(other="few_shot")["method"]) == {"caa", "sae_ts", "random"}
    assert not (copied.results / "steering/london/few_shot/vector.safetensors").exists()
    assert copied.run("steering", config=config) == {}


@pytest.mark.slow
def test_a_search_over_layers_is_made_by_goal_and_takes_up_what_is_finished(copied):
    search = {"layers": [1], "methods": ["caa", "sae_ts", "random"], "scales": [0.5, 1.0]}
    config = {"steering.search": search | {"kl_budget": 5.0, "tokens": 256}}
    jobs = copied.run("steering", config=config)
    runs = {"summarise_scores": 1, "choose_layers": 1, "steering": 1}
    assert jobs == {"search_layers": 2, "judge_completions": 2} | runs
    folder = copied.results / "steering"
    table = pl.read_parquet(folder / "search.parquet")
    tried = {(method, layer) for _, method, layer in table.select(table.columns[:3]).iter_rows()}
    assert tried == {
        *(("unsteered", None), ("caa", 0), ("caa", 1), ("sae_ts", 0), ("random", 0)),
        ("random", 1),
    }
    assert len(table) == 2 * (1 + 5 * 2)
    best = pl.read_parquet(folder / "search_best.parquet")
    assert best["product"].null_count() == 0
    assert (folder / "london/search/caa-layer-1/vector.safetensors").exists()
    assert copied.run("steering", config=config) == {}
    for name in ("london/search/completions.parquet", "search.parquet"):
        (folder / name).unlink()
    jobs = copied.run("steering", config=config)
    assert jobs["search_layers"] == jobs["judge_completions"] == jobs["choose_layers"] == 1
    log = (copied.results / "logs/search_layers/london.log").read_text()
    assert log.count("kept from an earlier run: layer-0") == 2
    assert log.count("kept from an earlier run: layer-1") == 2
    assert pl.read_parquet(folder / "search.parquet").equals(table)
