"""Token sets of every kind of tokenizer, of nltk where it is there, and of the user, whose mistakes
are named."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from saeflow.analyses.logit_lens.io import load_sets, read_set_files, save_sets
from saeflow.analyses.logit_lens.settings import TokenSetSelection
from saeflow.analyses.logit_lens.token_sets import MemberSet, token_sets
from saeflow.config import read_token_sets
from saeflow.corpora.tales import tokenizer as tales_tokenizer
from saeflow.corpora.tales.automaton import automaton
from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.errors import SaeflowError
from saeflow.models.vocabulary import Vocabulary, vocabulary

TEXT = [
    'The CIA paid 1999 dollars (or 12 pounds) in Paris, said Anna; "why not?" é 日本 the cat sat on the mat.',
    "An old café - the OLD one! - had 7 chairs and 123 cups… [nobody] {knows} why cats sit.",
] * 4
KINDS = TokenSetSelection().kinds


def byte_level() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|endoftext|>")


def sentence_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=600, special_tokens=specials))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]"])
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="[CLS]", unk_token="[UNK]")


TOKENIZERS = {"byte level": byte_level, "sentence piece": sentence_piece, "word piece": word_piece}


def known_to(name: str) -> Vocabulary:
    tokenizer = TOKENIZERS[name]()
    return vocabulary(tokenizer, len(tokenizer))


def texts_of(of: Vocabulary, sets: list[MemberSet], name: str) -> set[str]:
    (token_set,) = (token_set for token_set in sets if token_set.name == name)
    return {of.texts[place] for place in token_set.members}


@pytest.mark.parametrize("name", ["byte level", "sentence piece"])
def test_the_texts_of_tokens_join_to_the_text(name: str) -> None:
    tokenizer, vocab = TOKENIZERS[name](), known_to(name)
    by_id = dict(zip(vocab.ids.tolist(), vocab.texts, strict=True))
    for text in TEXT[:2]:
        joined = "".join(
            by_id[token] for token in tokenizer(text, add_special_tokens=False)["input_ids"]
        )
        plain = re.sub(
            r"(\\x[0-9a-f]{2})+",
            lambda run: bytes.fromhex(run[0].replace("\\x", "")).decode(),
            joined,
        )
        assert plain.removeprefix(" ") == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_built_in_sets_mean_the_same_with_every_tokenizer(name: str) -> None:
    vocab = known_to(name)
    sets = token_sets(vocab, KINDS, 1, {})
    assert vocab.marks_space
    assert {" the", " cat"} <= texts_of(vocab, sets, "starts_with_space")
    assert not {"the", "at"} & texts_of(vocab, sets, "starts_with_space")
    assert all(text[:1] != " " for text in texts_of(vocab, sets, "continues"))
    assert texts_of(vocab, sets, "all_caps") <= {
        " CIA",
        "CIA",
        " OLD",
        "OLD",
        " CI",
        "CI",
        " OL",
        "OL",
        "IA",
        "LD",
    }
    assert texts_of(vocab, sets, "all_caps")
    assert {text.strip() for text in texts_of(vocab, sets, "sentence_end")} == {".", "!", "?", "…"}
    assert all(set(text) & set("([{") for text in texts_of(vocab, sets, "open_bracket"))
    assert {text.strip()[0] for text in texts_of(vocab, sets, "digits")} <= set("0123456789")
    assert {len(text.strip()) for text in texts_of(vocab, sets, "digits_3")} <= {3}
    assert " cat" in texts_of(vocab, sets, "letter_c") & texts_of(vocab, sets, "length_3")
    special = texts_of(vocab, sets, "special")
    assert special
    for token_set in sets:
        assert token_set.name == "special" or not special & {
            vocab.texts[place] for place in token_set.members
        }
        assert (np.diff(token_set.members) > 0).all()


def test_tokens_of_bytes_are_shown_and_are_a_set() -> None:
    vocab = known_to("byte level")
    broken = texts_of(vocab, token_sets(vocab, KINDS, 1, {}), "broken_bytes")
    assert "\\xe6" in broken  # the first byte of 日
    assert " the" not in broken


def test_a_tokenizer_without_marks_has_no_sets_of_spaces_and_skips_rows_without_a_token() -> None:
    tokenizer = tales_tokenizer()
    vocab = vocabulary(tokenizer, len(tokenizer) + 64)
    assert len(vocab.ids) == len(tokenizer)
    assert not vocab.marks_space
    assert vocab.special.sum() == 3
    names = {token_set.name for token_set in token_sets(vocab, KINDS, 1, {})}
    assert not {"starts_with_space", "continues"} & names
    assert vocabulary(tokenizer, 100).ids.max() == 99


def test_sets_that_are_too_small_are_left_out_by_name() -> None:
    sets = token_sets(known_to("word piece"), KINDS, 4, {})
    (brackets,) = (token_set for token_set in sets if token_set.name == "digits_4")
    assert brackets.left_out is not None
    assert "fewer than 4" in brackets.left_out
    assert len(brackets.members) == 0


def test_kinds_that_are_not_asked_for_are_not_there() -> None:
    assert {
        token_set.kind
        for token_set in token_sets(known_to("word piece"), ["digits", "length"], 1, {})
    } == {"digits", "length"}


def test_without_nltk_or_its_data_parts_of_speech_are_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    sets = {
        token_set.name: token_set for token_set in token_sets(known_to("word piece"), KINDS, 1, {})
    }
    assert (
        sets["part_of_speech"].left_out == sets["first_names"].left_out == "nltk is not installed"
    )

    def absent(words: list[str]) -> list[tuple[str, str]]:
        raise LookupError("averaged_perceptron_tagger_eng not found")

    monkeypatch.setitem(sys.modules, "nltk", types.SimpleNamespace(pos_tag=absent))
    sets = {
        token_set.name: token_set for token_set in token_sets(known_to("word piece"), KINDS, 1, {})
    }
    assert sets["part_of_speech"].left_out == "nltk's data is not installed"


def test_parts_of_speech_and_names_come_from_nltk_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tagged(words: list[str]) -> list[tuple[str, str]]:
        return [(word, "NNP" if word[0].isupper() else "NN") for word in words]

    lists = {"female.txt": ["Anna", "Paris"], "male.txt": ["Paris", "Bob"]}
    corpus = types.SimpleNamespace(names=types.SimpleNamespace(words=lists.get))
    monkeypatch.setitem(sys.modules, "nltk", types.SimpleNamespace(pos_tag=tagged, corpus=corpus))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
    vocab = known_to("word piece")
    sets = token_sets(vocab, KINDS, 1, {})
    assert {" The", " An"} <= texts_of(vocab, sets, "tag_NNP")
    assert " the" in texts_of(vocab, sets, "tag_NN")
    assert (
        texts_of(vocab, sets, "female_names") >= {" Paris"} == texts_of(vocab, sets, "male_names")
    )


def user_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_words_and_patterns_of_the_user_are_whole_tokens(tmp_path: Path) -> None:
    path = user_file(
        tmp_path,
        """
sets:
  cats: {words: [the, CIA, nonexistent], description: mine}
  endings: {pattern: 'at$'}
""",
    )
    vocab = known_to("byte level")
    sets = token_sets(vocab, [], 1, read_set_files([path]))
    assert [token_set.kind for token_set in sets] == ["user", "user"]
    assert {" the", " The", "The", " CIA"} & texts_of(vocab, sets, "cats") >= {" the", " CIA"}
    assert " cia" not in texts_of(vocab, sets, "cats")
    assert all(text.endswith("at") for text in texts_of(vocab, sets, "endings"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sets:\n  a: {}\n", "sets.a: is empty; give words, a pattern or both"),
        ("sets:\n  a: {pattern: '['}\n", "sets.a.pattern: '[' is no regular expression"),
        ("sets:\n  a: {word: [x]}\n", "sets.a.word: is not a known key; did you mean 'words'?"),
        ("sets: {}\n", "sets: "),
        ("other: 1\n", "sets: is missing"),
        ("sets:\n  a: {words: [qqq, zzz]}\n", "sets.a: none of its 2 words is a token ('qqq' …)"),
        ("sets:\n  a: {pattern: '^qqq$'}\n", "sets.a: no token matches '^qqq$'"),
        ("sets:\n  digits: {words: [the]}\n", "sets.digits: there is another set of that name"),
        ("sets:\n  a: {pattern: ''}\n", "sets.a: holds every token"),
    ],
)
def test_bad_sets_are_named_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = user_file(tmp_path, text)
    vocab = known_to("word piece")._replace(
        special=np.zeros(len(known_to("word piece").ids), dtype=bool)
    )
    with pytest.raises(SaeflowError) as caught:
        token_sets(vocab, KINDS, 1, read_set_files([path]))
    lines = str(caught.value).splitlines()
    assert any(sentence in line and line.startswith(str(path)) for line in lines)
    assert len(lines) <= 2


def test_sets_survive_the_way_to_disk(tmp_path: Path) -> None:
    vocab = known_to("byte level")
    sets = token_sets(vocab, KINDS, 3, {})
    save_sets(tmp_path, vocab, sets)
    back = load_sets(tmp_path)
    assert back.vocabulary.texts == vocab.texts
    assert np.array_equal(back.vocabulary.ids, vocab.ids)
    kept = [token_set for token_set in sets if not token_set.left_out]
    assert [token_set.name for token_set in back.sets] == [token_set.name for token_set in kept]
    assert all(
        np.array_equal(token_set.members, its.members)
        for token_set, its in zip(back.sets, kept, strict=True)
    )


def test_the_default_study_s_sets_are_the_words_of_its_topics() -> None:
    tokenizer, world = tales_tokenizer(), automaton()
    vocab = vocabulary(tokenizer, len(tokenizer))
    path = ROOT / "workflow/sets/tales.yaml"
    assert list(read_token_sets(path)) == list(TOPICS[1:])
    for token_set in token_sets(vocab, [], 1, read_set_files([path])):
        topic = TOPICS.index(token_set.name)
        assert (
            token_set.members.tolist()
            == np.flatnonzero(np.asarray(world.word_topic) == topic).tolist()
        )
