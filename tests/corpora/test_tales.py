"""Stories, tokenizer and exact probabilities of the grammar ``tales``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saeflow.corpora import tales
from saeflow.corpora.tales import lexicon as words_by_class
from saeflow.corpora.tales.automaton import automaton, emission
from saeflow.corpora.tales.tokenization import join_tokens, split_tokens

CONTEXT = 64


@pytest.fixture(scope="module")
def blocks() -> np.ndarray:
    return tales.story_blocks(seed=0, split="eval", blocks=400, context=CONTEXT).tokens


def text_of(tokens: np.ndarray) -> str:
    return join_tokens(automaton().words[token] for token in tokens if token)


def test_vocabulary_is_large_but_learnable() -> None:
    words = automaton().words
    assert len({text.lower() for text in words[3:] if text[0].isalpha()}) >= 700
    assert len(words) == len(set(words)) < 1800


def test_every_word_of_the_lexicon_but_bare_forms_can_be_written() -> None:
    written = {text.lower() for text in automaton().words}
    bases = [
        entry.word
        for name in ("person.sg", "thing.pl", "meet.past")
        for entry in words_by_class.lexicon()[name]
    ]
    assert written.issuperset(base.lower() for base in bases)


def test_emissions_are_probabilities_for_every_topic() -> None:
    for symbol in automaton().symbols:
        for topic in range(len(tales.TOPICS)):
            assert sum(share for _, share in emission(symbol, topic, name=0)) == pytest.approx(1.0)


def test_tokenizer_round_trip_is_exact(blocks: np.ndarray, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = tales.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    for tokens in blocks[:100, 1:]:
        text = text_of(tokens)
        for loaded in (tokenizer, reloaded):
            assert loaded(text)["input_ids"] == tokens.tolist()
            assert loaded.decode(tokens) == text
        assert split_tokens(text) == [automaton().words[token] for token in tokens]
    assert (reloaded.bos_token_id, reloaded.unk_token_id, reloaded.pad_token_id) == (0, 1, 2)
    assert reloaded("xylophone")["input_ids"] == [1]
    assert reloaded.decode([0, *tokens], skip_special_tokens=True) == text


def test_a_block_does_not_depend_on_how_many_are_asked_for() -> None:
    few, many = (tales.story_blocks(3, "sae", blocks=count, context=32) for count in (10, 1000))
    assert np.array_equal(few.tokens, many.tokens[:10])
    assert np.array_equal(few.labels["syntax"], many.labels["syntax"][:10])
    longer = tales.story_blocks(3, "sae", blocks=10, context=48)
    assert np.array_equal(few.tokens, longer.tokens[:, :32])


def test_seeds_and_splits_give_different_stories() -> None:
    tokens = [
        tales.story_blocks(seed, split, 8, 32).tokens
        for seed, split in [(0, "sae"), (1, "sae"), (0, "eval")]
    ]
    assert not np.array_equal(tokens[0], tokens[1])
    assert not np.array_equal(tokens[0], tokens[2])


def test_labels_name_the_topic_and_the_part_of_speech_of_every_token() -> None:
    made = tales.story_blocks(0, "eval", blocks=300, context=CONTEXT)
    topic, syntax = made.labels["topic"], made.labels["syntax"]
    assert made.tokens.dtype == np.int32
    assert topic.dtype == syntax.dtype == np.uint8
    assert made.label_names["topic"] == list(tales.TOPICS)
    index = {text: i for i, text in enumerate(automaton().words)}
    names = np.array(made.label_names["syntax"])
    assert set(names[syntax[:, 0]]) == {"special"}
    assert set(names[syntax[made.tokens == index["the"]]]) == {"determiner"}
    assert set(names[syntax[made.tokens == index["letters"]]]) == {"noun_pl"}
    assert set(names[syntax[made.tokens == index["was"]]]) == {"auxiliary"}
    assert set(topic[made.tokens == index["London"]]) == {tales.TOPICS.index("london")}


def test_topics_are_frequent_and_visible() -> None:
    made = tales.story_blocks(0, "eval", blocks=3000, context=CONTEXT)
    counts = np.stack(
        [(made.labels["topic"] == topic).sum(axis=1) for topic in range(1, 10)], axis=1
    )
    leading = np.bincount(counts.argmax(axis=1)[counts.max(axis=1) > 0], minlength=9) / len(counts)
    assert ((leading > 0.06) & (leading < 0.12)).all()
    content = automaton().word_content[made.tokens].sum(axis=1)
    on_topic = counts.max(axis=1) >= 3
    assert 0.3 < (counts.max(axis=1) / content)[on_topic].mean() < 0.5


def test_stories_are_coherent_wherever_they_are_cut(blocks: np.ndarray) -> None:
    for row, tokens in enumerate(blocks):
        assert tales.coherence(text_of(tokens[1 : 2 + row % (CONTEXT - 1)])) == 1.0


def test_log_probs_are_finite_on_stories_and_minus_infinity_on_nonsense(blocks: np.ndarray) -> None:
    log_probs = np.array([tales.token_log_probs(tokens.tolist()) for tokens in blocks[:100]])
    assert np.isfinite(log_probs).all()
    assert (log_probs[:, 0] == 0).all()
    assert 1.5 < -log_probs[:, 1:].mean() < 3.0
    wrong = tales.token_log_probs(["<bos>", "She", "walk", "to", "the", "river", "."])
    assert np.isfinite(wrong[:1]).all()
    assert (wrong[2:] == -np.inf).all()
    assert tales.token_log_probs(["<bos>", "I", "xylophone"])[2] == -np.inf


def test_next_token_probs_sum_to_one_and_agree_with_log_probs(blocks: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    for tokens in blocks[:40]:
        cut = int(generator.integers(1, CONTEXT))
        probabilities = tales.next_token_probs(tokens[:cut].tolist())
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
        assert np.log(probabilities[tokens[cut]]) == pytest.approx(
            tales.token_log_probs(tokens.tolist())[cut]
        )


@pytest.mark.parametrize("prefix", [[], ["I"], ["Last", "night"], ["I", "think"]])
def test_drawn_next_tokens_are_as_frequent_as_predicted(prefix: list[str]) -> None:
    tokens = tales.story_blocks(0, "frequencies", blocks=60_000, context=len(prefix) + 2).tokens
    index = {text: i for i, text in enumerate(automaton().words)}
    begins = (tokens[:, 1:-1] == [index[text] for text in prefix]).all(axis=1)
    drawn = np.bincount(tokens[begins, -1], minlength=len(index))
    expected = tales.next_token_probs(["<bos>", *prefix]) * begins.sum()
    assert begins.sum() > 1000
    assert (drawn[expected == 0] == 0).all()
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected) + 1)[expected > 0].all()


def test_predictions_are_calibrated_deep_in_stories(blocks: np.ndarray) -> None:
    """The surprise of drawn tokens is that which the distributions expect; every difference has
    mean zero."""
    excess, variance = [], []
    topical = automaton().word_topic > 0
    topical_excess, topical_variance = [], []
    for row, tokens in enumerate(blocks[:160]):
        cut = 20 + row % 40
        probabilities = tales.next_token_probs(tokens[:cut].tolist())
        surprise = -np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
        entropy = (probabilities * surprise).sum()
        excess.append(surprise[tokens[cut]] - entropy)
        variance.append((probabilities * (surprise - entropy) ** 2).sum())
        share = probabilities[topical].sum()
        topical_excess.append(float(topical[tokens[cut]]) - share)
        topical_variance.append(share * (1 - share))
    assert abs(sum(excess)) < 4 * np.sqrt(sum(variance))
    assert abs(sum(topical_excess)) < 4 * np.sqrt(sum(topical_variance))
