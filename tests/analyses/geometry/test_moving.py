"""A model that goes by a circle and a line is moved along them; one that does not is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from planted_circle import HOOK, NULLS, POINTS, RING, planted_model, planted_tables
from tiny_models import tiny_language_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saeflow.analyses.geometry.moving import MovedTexts, move_all, single_token, turn_words
from saeflow.analyses.geometry.reading import Read, filled, read_all, save_activations
from saeflow.analyses.geometry.settings import LinePrompts, Nulls, Points, WordGroup
from saeflow.errors import SaeflowError
from saeflow.models.hooks import attach
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture, final_states, logits, logits_after, padded


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    return planted_tables(tmp_path_factory.mktemp("geometry"))


def test_the_planted_circle_and_line_are_found_beside_their_nulls(
    tables: dict[str, pl.DataFrame],
) -> None:
    circle = tables["circles"].row(0, named=True)
    assert circle["r2"] > 0.95 > circle["null_high"]
    assert circle["neighbours"] == len(RING)
    assert circle["p"] == pytest.approx(14 / 5040)
    line = tables["lines"].filter(method="ridge").row(0, named=True)
    assert line["r2"] > 0.9 > line["null_high"]
    read_off = tables["read_off"].row(0, named=True)
    assert read_off["rank"] > max(0.9, read_off["null_high"])
    assert read_off["p"] == pytest.approx(1 / 20)


def test_a_model_that_goes_by_the_circle_takes_turned_words_for_those_they_were_turned_to(
    tables: dict[str, pl.DataFrame],
) -> None:
    causes = tables["causes"].filter(of="ring")
    value = {
        (edit, kind, measure): mean
        for edit, kind, measure, mean in causes.select(
            "edit", "kind", "measure", "value"
        ).iter_rows()
    }
    assert value["none", "circle", "right"] == 1
    assert value["turn", "circle", "moved"] == 1
    assert value["turn", "random", "moved"] < 0.2
    assert value["turn", "random", "right"] > 0.8
    assert value["centre", "circle", "right"] < 0.5 < value["centre", "random", "right"]


def test_a_model_that_goes_by_the_line_says_the_high_token_more_often(
    tables: dict[str, pl.DataFrame],
) -> None:
    change = tables["causes"].filter(of="time", measure="change", edit="shift")
    along, random = (change.filter(kind=kind).row(0, named=True) for kind in ("line", "random"))
    assert along["low"] > 2
    assert random["low"] < 0 < random["high"] or abs(random["value"]) < 0.5 * along["value"]


def test_adding_nothing_gives_what_the_model_says_and_a_patch_what_it_says_of_the_other_word() -> (
    None
):
    lm = tiny_language_model("llama")
    cat, dog = (filled(lm, "the {}", word) for word in ("cat", "dog"))
    last = f"blocks.{lm.n_layers - 1}.hook_resid_post"
    held = [
        capture(lm, torch.tensor([each.tokens]), [last])[last][0, each.place].double().numpy()
        for each in (cat, dog)
    ]
    moved = MovedTexts(lm, [cat, dog], last)
    rows = [*moved.usual(), *moved.moved(np.stack([held[1] - held[0], held[0] - held[1]]))]
    for row, each in zip(rows, (cat, dog, dog, cat), strict=True):
        own = logits(lm, torch.tensor([each.tokens]))[0, -1].double().log_softmax(-1)
        assert np.allclose(row, own.numpy(), atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_layers_above_the_hook_give_what_the_whole_model_gives_to_the_bit(layer: int) -> None:
    lm = tiny_language_model("llama")
    texts = [filled(lm, "the {} sat on", "cat"), filled(lm, "a {}", "dog")]
    hook = f"blocks.{layer}.hook_resid_post"
    deltas = np.random.default_rng(0).standard_normal((2, lm.d_model))

    def add(resid: torch.Tensor) -> torch.Tensor:
        edited = resid.clone()
        for row, each in enumerate(texts):
            edited[row, each.place] += torch.from_numpy(deltas[row]).float()
        return edited

    with attach(lm, [(hook, add)]):
        states = final_states(lm, padded(lm, [each.tokens for each in texts]))
    whole = logits_after(lm, states, [len(each.tokens) for each in texts]).log_softmax(-1)
    moved = MovedTexts(lm, texts, hook)
    assert np.array_equal(moved.moved(deltas), whole.double().numpy())
    assert not np.array_equal(moved.usual(), whole.double().numpy())


def test_a_word_is_read_at_its_last_token_whatever_follows_it() -> None:
    lm = tiny_language_model("llama")
    alone, before = filled(lm, "the {}", "cat"), filled(lm, "the {} sat on", "cat")
    assert alone.place == before.place == 2
    assert before.tokens[alone.place] == lm.tokenizer.get_vocab()["cat"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ["cat", "dog", "sat"]}, "words.* are 3; a circle needs 5"),
        ({"templates": ["the cat", "a {}"]}, r"templates.0: 'the cat' must hold \{\} once"),
        ({"templates": ["a {}"]}, "are one text, and intervals need two"),
        ({"prompts": [{"prompt": "the {}", "step": 7}]}, "7 steps lead back to the word itself"),
        ({"kind": "weekdays"}, "give either kind or words"),
    ],
)
def test_a_group_that_tells_nothing_is_refused(change: dict[str, object], message: str) -> None:
    group = {"words": list(RING), "templates": ["the {}", "a {}"]}
    with pytest.raises(ValueError, match=message):
        WordGroup.model_validate(group | change)


def test_a_word_of_several_tokens_cannot_be_told_by_the_next_token(tmp_path) -> None:
    asked = POINTS.model_dump()
    asked["groups"]["ring"]["words"][0] = "catfish"
    lm = planted_model()
    points = Points.model_validate(asked)
    save_activations(tmp_path / "read.safetensors", read_all(lm, points, [HOOK], {}, 0))
    with pytest.raises(SaeflowError, match=r"' catfish' is no single token of the model"):
        turn_words(lm, Read(tmp_path / "read.safetensors"), points, Nulls(), "ring", HOOK, 0)


def test_random_directions_do_nothing_as_often_as_their_intervals_say(tmp_path) -> None:
    """Texts that the model takes alike: one direction for all of them is one draw, not many."""
    lm, held = planted_model(), 0
    with torch.no_grad():  # along what nothing is read of: all activations are about as long
        unread = torch.linalg.svd(lm.model.lm_head.weight).Vh[-1]
        lm.decoder.embed_tokens.weight += 30 * unread
    save_activations(tmp_path / "read.safetensors", read_all(lm, POINTS, [HOOK], {}, 0))
    read = Read(tmp_path / "read.safetensors")
    wanted = POINTS.model_dump(exclude_none=True) | {"groups": {}}
    wanted["lines"]["time"]["cause"]["texts"] = 16
    asked = Points.model_validate(wanted)
    for seed in range(20):
        causes = move_all(lm, read, asked, NULLS, [HOOK], {}, seed).causes
        row = causes.filter(kind="random", measure="change").row(0, named=True)
        held += row["low"] <= 0 <= row["high"]
    assert held >= 16


def opens_with_a_space() -> LanguageModel:
    """A model whose tokenizer writes a space before any text, and takes digits apart."""
    names = ("<bos>", "<eos>", "<unk>", "▁", "▁year", "▁day", "▁is", "1", "8", "day")
    held = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    held.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Digits(True)]
    )
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=held, **special)
    return replace(tiny_language_model("llama"), tokenizer=tokenizer)


def test_an_answer_is_the_token_that_follows_and_not_the_one_that_opens_a_text() -> None:
    lm = opens_with_a_space()
    tokens = {name: lm.tokenizer.get_vocab()[name] for name in ("8", "▁day", "day")}
    assert single_token(lm, "year 1", "8", "cause.high") == tokens["8"]
    assert single_token(lm, "year is", " day", "prompts") == tokens["▁day"]
    with pytest.raises(SaeflowError, match=r"cause.high: '81' is no single token of the model"):
        single_token(lm, "year 1", "81", "cause.high")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": "on", "high": "on"}, "high: is the token of low numbers, too"),
        ({"steps": [0.0, 1.0]}, "steps: hold 0, which is told anyhow"),
    ],
)
def test_a_move_that_tells_nothing_is_refused(change: dict[str, object], message: str) -> None:
    cause = {"prompts": ["I {}"], "low": "on", "high": "under"}
    with pytest.raises(ValueError, match=message):
        LinePrompts.model_validate(cause | change)
