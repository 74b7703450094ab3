"""Vectors of tasks recover a planted task and placebos do not; heads' effects are those of whole
passes."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from planted_tasks import PROMPTS, VECTORS, planted_model, splits, vectors_in
from tiny_models import tiny_language_model

from saeflow.analyses.tasks.answering import Answers, Frozen, answer
from saeflow.analyses.tasks.prompts import Question
from saeflow.analyses.tasks.shares import Ends, Shares
from saeflow.analyses.tasks.sweep import layers_of, sweep
from saeflow.analyses.tasks.vectors import (
    chosen_heads,
    function_vector,
    indirect_effects,
    read_vectors,
)
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.reading import read_at
from saeflow.models.running import capture, logits


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    held = vectors_in(tmp_path_factory.mktemp("tasks"))
    return sweep(planted_model(), splits(), held, PROMPTS, VECTORS, [], 0)


def test_vectors_recover_the_task_and_the_placebo_recovers_nothing(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    for row in tables[0].drop_nulls("layer").to_dicts():
        if row["kind"] == "placebo":
            assert row["recovered_low"] < 0 < row["recovered_high"]
            assert row["recovered"] < 0.2
        else:
            assert row["recovered_low"] > 0.9
            assert row["accuracy"] == 1


def test_exchanged_examples_say_no_more_than_none(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    ends = tables[0].filter(pl.col("layer").is_null())
    assert (ends.filter(kind="few_shot")["recovered"] == 1).all()
    assert (ends.filter(kind="zero_shot")["recovered"] == 0).all()
    assert (ends.filter(kind="exchanged")["recovered"].abs() < 0.15).all()


def test_pairs_are_told_with_what_the_model_says_of_them(
    tables: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    few_shot = tables[1].filter(split="test", condition="few_shot")
    means = few_shot.group_by("task").agg(pl.col("loss").mean())
    row = tables[0].filter(kind="few_shot")
    joined = means.join(row, on="task")
    torch.testing.assert_close(joined["loss"].to_torch(), joined["loss_right"].to_torch())


def test_effects_of_heads_are_those_of_passes_of_the_whole_model() -> None:
    lm = tiny_language_model("llama")
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(lm.n_layers, 4, 8, generator=generator)
    questions = [Question([0, 5, 6, 7], [8, 9], 2), Question([0, 11, 3, 12, 7], [5], 1)]
    effects = indirect_effects(lm, questions, means)

    def probability(question: Question, layer: int, head: int | None) -> float:
        place = len(question.tokens) - 1

        def exchange(z: torch.Tensor) -> torch.Tensor:
            edited = z.clone()
            if head is not None:
                edited[:, place, 8 * head : 8 * head + 8] = means[layer, head]
            return edited

        tokens = torch.tensor([[*question.tokens, *question.answer[:-1]]])
        with attach(lm, [(f"blocks.{layer}.attn.hook_z", exchange)]):
            said = logits(lm, tokens)[0, place:].log_softmax(-1)
        right = torch.tensor(question.answer)
        return float(said[torch.arange(len(right)), right].sum().exp())

    for layer, head in ((0, 1), (1, 3), (2, 0)):
        changes = [probability(q, layer, head) - probability(q, layer, None) for q in questions]
        assert effects[layer, head].item() == pytest.approx(sum(changes) / 2, abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_function_vector_of_all_heads_of_a_layer_is_what_its_attention_adds(family: str) -> None:
    lm = tiny_language_model(family)
    site, out = "blocks.1.attn.hook_z", "blocks.1.attn.hook_out"
    seen = capture(lm, torch.tensor([[0, 5, 6, 7]]), [site, out])
    means = torch.zeros(lm.n_layers, 4, 8)
    means[1] = seen[site][0, -1].view(4, 8)
    heads = torch.tensor([[1, head] for head in range(4)])
    bias = getattr(lm.blocks[1].get_submodule(lm.family.sites["attn.hook_z"].module), "bias", None)
    added = seen[out][0, -1] - (0 if bias is None else bias)
    torch.testing.assert_close(function_vector(lm, means, heads), added)


def test_heads_are_chosen_by_their_mean_effect_over_tasks() -> None:
    effects = torch.zeros(2, 3, 4)
    effects[0, 1, 2], effects[1, 1, 2], effects[0, 2, 0] = 0.5, 0.5, 0.9
    assert chosen_heads(effects, 2).tolist() == [[1, 2], [2, 0]]


def test_function_vectors_of_a_model_whose_heads_are_not_told_apart_are_refused() -> None:
    lm, asked = planted_model(), VECTORS.model_copy(update={"kinds": ["function"]})
    lm.model.config.layer_types = ["linear_attention"]
    try:
        with pytest.raises(
            SaeflowError, match="cannot be exchanged one by one; leave out function"
        ):
            read_vectors(lm, splits(), PROMPTS, asked, 0)
    finally:
        lm.model.config.layer_types = None


def test_a_layer_that_the_model_lacks_is_refused_and_eight_are_tried_by_default() -> None:
    lm = tiny_language_model("llama")
    assert layers_of(lm, VECTORS.model_copy(update={"layers": None}), [1]) == [0, 1, 2]
    with pytest.raises(SaeflowError, match=r"'blocks\.7\.hook_resid_post' does not exist"):
        layers_of(lm, VECTORS.model_copy(update={"layers": [7]}), [])


def test_shares_lie_between_the_ends_and_are_null_where_there_is_no_gap() -> None:
    right = torch.zeros(40, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    zero = 4 + torch.rand(40, generator=generator)
    few = 1 + torch.rand(40, generator=generator)
    half = Answers((zero + few) / 2, right)
    shares = Shares(Ends(Answers(zero, right), Answers(few, right)), 400, 0.95, 0, "one")
    assert shares.recovered(half) == pytest.approx((0.5, 0.5, 0.5))
    noisy = shares.recovered(Answers(half.loss + torch.randn(40, generator=generator), right))
    assert noisy.low < noisy.value < noisy.high
    none = Shares(Ends(Answers(few, right), Answers(zero, right)), 400, 0.95, 0, "one")
    assert none.row(half)["recovered"] is None
    pair = [
        Answers(each.loss[:1], right[:1])
        for each in (Answers(zero, right), Answers(few, right), half)
    ]
    row = Shares(Ends(*pair[:2]), 400, 0.95, 0, "one").row(pair[2])
    assert row["recovered"] == pytest.approx(0.5)
    assert row["recovered_low"] is row["loss_high"] is None  # one pair tells nothing of others


def test_prompts_beyond_the_context_are_refused_before_any_is_read() -> None:
    long = PROMPTS.model_copy(update={"before": "x1 " * 300})
    with pytest.raises(SaeflowError, match=r"a prompt of 'one' has .* set fewer tasks\.prompts"):
        read_vectors(planted_model(), splits(), long, VECTORS, 0)


def test_what_is_read_of_a_model_that_gives_nan_is_refused() -> None:
    lm = tiny_language_model("llama")
    with torch.no_grad():
        lm.blocks[1].mlp.down_proj.weight.fill_(torch.nan)
    questions = [Question([0, 5, 6, 7], [8, 9], 2)]
    with pytest.raises(SaeflowError, match=r"tasks: the loss of .* is NaN or infinite"):
        answer(lm, questions)
    with pytest.raises(SaeflowError, match="tasks: the loss, with a vector added, of"):
        Frozen(lm, questions, 0).with_added(torch.zeros(32))
    hook = "blocks.1.hook_resid_post"
    with pytest.raises(
        SaeflowError, match=f"own: the activation at {hook} of .* check its weights"
    ):
        next(read_at(lm, ["the cat"], "last", [hook], "own"))
