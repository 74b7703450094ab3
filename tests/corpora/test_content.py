"""What of a record is read: text, chats through the model's template, token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny_models import CHAT_TEMPLATE, chat_tokenizer, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saeflow.config.sections import Corpus, Tokens
from saeflow.corpora.text import documents, tokenised_blocks
from saeflow.corpora.tokenising import Reader
from saeflow.errors import SaeflowError


def corpus_of(path: Path, **settings: Any) -> Corpus:
    return Corpus.model_validate({"kind": "text", "path": str(path), **settings})


def write(folder: Path, records: list[dict[str, Any]], kind: str = "jsonl") -> Path:
    path = folder / f"corpus.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        pl.DataFrame(records).write_parquet(path)
    return path


def read(path: Path, **settings: Any) -> list[Any]:
    corpus = corpus_of(path, **settings)
    return [each for split in ("sae", "eval") for each in documents(corpus, split)]


def token_lists(path: Path, tokenizer: Any, bos: int = 0, **settings: Any) -> list[list[int]]:
    corpus = corpus_of(path, **settings)
    every = (each for split in ("sae", "eval") for each in documents(corpus, split))
    return list(Reader(corpus, tokenizer, bos).tokens(every))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, no merges; what control tokens are made of are tokens of their own."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template="{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "<|im_end|>{% endfor %}",
    )


CHAT = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
SHARED = [{"from": "human", "value": "the cat"}, {"from": "gpt", "value": "sat"}]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("chat", [CHAT, SHARED, json.dumps(CHAT)], ids=["messages", "from", "json"])
def test_chats_are_what_the_models_template_writes(tmp_path: Path, kind: str, chat: Any) -> None:
    path = write(tmp_path, [{"id": 1, "talk": chat}], kind)
    tokenizer = chat_tokenizer(CHAT_TEMPLATE)
    [tokens] = token_lists(path, tokenizer, messages="talk")
    written = "<start> user the cat <stop> <start> assistant sat <stop>"
    assert tokenizer.decode(tokens) == written
    assert tokens[0] == 3  # the BOS that the template writes stands in front of blocks alone


@pytest.mark.parametrize(
    ("field", "value"), [("messages", CHAT), ("conversations", SHARED), ("input_ids", [4, 5, 6])]
)
def test_usual_names_are_read_where_there_is_no_text(
    tmp_path: Path, field: str, value: Any
) -> None:
    path = write(tmp_path, [{field: value}])
    [document] = read(path)
    assert document == (value if field == "input_ids" else CHAT)
    assert read(write(tmp_path, [{field: value, "text": "the cat"}])) == ["the cat"]


def test_chats_of_a_model_without_a_template_are_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, [{"messages": CHAT}])
    with pytest.raises(SaeflowError, match=r"^corpus\.messages: the model's tokenizer has no chat"):
        token_lists(path, tiny_tokenizer())


def test_a_chat_that_the_template_refuses_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, [{"messages": [{"role": "judge", "content": "x"}]}])
    template = "{{ raise_exception('Only user and assistant') }}"
    with pytest.raises(SaeflowError, match=r"a chat of judge \(Only user and assistant\)"):
        token_lists(path, chat_tokenizer(template))


def test_a_message_of_parts_is_its_texts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]
    path = write(tmp_path, [{"messages": [{"role": "user", "content": parts}]}])
    assert read(path) == [[{"role": "user", "content": "the cat"}]]
    image = write(tmp_path, [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}])
    with pytest.raises(SaeflowError, match="holds something else than text"):
        read(image)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_token_ids_fill_blocks_as_they_are(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(0)
    rows = [[0, *map(int, draw.integers(3, 15, 17))] for _ in range(200)]
    path = write(tmp_path, [{"input_ids": row} for row in rows], kind)
    corpus = corpus_of(path, context=18, tokens=Tokens(sae=1800, eval=1024), join=False)
    blocks = tokenised_blocks(corpus, "sae", tiny_tokenizer(), 0).tokens
    assert len(blocks) == 100
    assert all(row in rows for row in blocks.tolist())


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_padding_of_token_ids_is_left_out(tmp_path: Path, kind: str) -> None:
    record = {"ids": [4, 5, 1, 1], "attention_mask": [1, 1, 0, 0], "labels": [-100, 5, 1, 1]}
    path = write(tmp_path, [record], kind)
    assert token_lists(path, tiny_tokenizer(), token_ids="ids") == [[4, 5]]
    with pytest.raises(SaeflowError, match=r"the token id -100 in the field 'labels'"):
        read(path, token_ids="labels")


def test_token_ids_of_another_tokenizer_are_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, [{"input_ids": [3, 50_256]}])
    with pytest.raises(SaeflowError, match="made with another tokenizer"):
        token_lists(path, tiny_tokenizer())


def test_fields_of_fields_and_several_fields_are_one_text(tmp_path: Path) -> None:
    record = {"meta": {"body": "deep"}, "a.b": "dotted", "prompt": "The cat", "completion": " sat"}
    for kind in ("jsonl", "parquet"):
        path = write(tmp_path, [record], kind)
        assert read(path, field="meta.body") == ["deep"]
        assert read(path, field="a.b") == ["dotted"]
        assert read(path, field=["prompt", "completion"]) == ["The cat sat"]
        assert read(path, field=["meta.body", "prompt"]) == ["deep\nThe cat"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("record", "settings", "advice"),
    [
        ({"id": "7", "content": "long"}, {}, "set corpus.field, for example to "),
        ({"prompt": "a", "completion": "b"}, {}, r"set corpus.field, for example to \[prompt, co"),
        ({"talk": CHAT}, {}, "set corpus.messages, for example to talk"),
        ({"ids": [1, 2]}, {}, "set corpus.token_ids, for example to ids"),
        ({"n": 3}, {}, "has no field 'text' but n; set corpus.field"),
        ({"talk": CHAT}, {"field": "talk"}, "name it in corpus.messages instead"),
        ({"ids": [1, 2]}, {"field": "ids"}, "name it in corpus.token_ids instead"),
        ({"body": "a"}, {"messages": "body"}, "name it in corpus.field instead"),
        ({"body": "a"}, {"token_ids": "body"}, "name it in corpus.field instead"),
        ({"body": "a"}, {"messages": "chat"}, "set corpus.field, for example to body"),
        ({"talk": [{"role": None}]}, {"messages": "talk"}, "names no role"),
        ({"talk": [{"role": "user", "content": 5}]}, {"messages": "talk"}, "no text but a int for"),
        (
            {"ids": [1.5, 2.0]},
            {"token_ids": "ids"},
            "set corpus.token_ids to one that is, of whole",
        ),
        (
            {"ids": [[1, 2], [3]]},
            {"token_ids": "ids"},
            "'ids' is no list of token ids; set corpus.t",
        ),
        ({"ids": [1, None]}, {"token_ids": "ids"}, "'ids' is no list of token ids; set corpus.tok"),
        ({"data": [{"text": "a"}]}, {}, "'data' holds records itself: write them as a list"),
    ],
)
def test_what_is_not_as_it_is_named_tells_the_key_and_a_value(
    tmp_path: Path, record: dict[str, Any], settings: dict[str, str], advice: str, kind: str
) -> None:
    with pytest.raises(SaeflowError, match=advice):
        read(write(tmp_path, [record], kind), **settings)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("null", r'is null, no record with fields; write it as \{"text": …\}, or remove it'),
        (json.dumps(CHAT), r'is a list, no record with fields; write it as \{"messages": …\}'),
        ("[1, 2]", r'write it as \{"input_ids": …\}'),
    ],
)
def test_a_line_that_is_no_record_tells_how_to_write_one(
    tmp_path: Path, line: str, advice: str
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(SaeflowError, match=f"corpus.jsonl, line 2: .*{advice}"):
        read(path)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("jsonl", {"type": "image", "url": "a.png"}),
        ("parquet", {"type": "image", "url": "a.png"}),  # a column has text for all parts, or null
        ("jsonl", {"type": "image", "text": None}),
        ("jsonl", {"type": "text", "text": 5}),
    ],
)
def test_a_part_that_is_no_text_is_refused_and_not_left_out(
    tmp_path: Path, kind: str, part: dict[str, Any]
) -> None:
    content = [part, {"type": "text", "text": "the cat"}]
    path = write(tmp_path, [{"messages": [{"role": "user", "content": content}]}], kind)
    with pytest.raises(SaeflowError, match="holds something else than text; leave it out"):
        read(path)


def test_a_mask_of_another_length_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [{"input_ids": [3, 4, 5], "attention_mask": [1]}])
    with pytest.raises(SaeflowError, match="has 3 token ids in the field 'input_ids' and 1 values"):
        read(path)


@pytest.mark.parametrize("place", ["role", "name", "content"])
def test_half_a_character_anywhere_in_a_message_is_one_sentence(tmp_path: Path, place: str) -> None:
    message = {"role": "user", "content": "a"} | {place: "us\ud83d"}
    with pytest.raises(SaeflowError, match=r"half of a character \(.ud83d"):
        read(write(tmp_path, [{"messages": [message]}]))


WRITTEN = "a <|endoftext|> b <|im_start|>user"


def test_control_tokens_that_are_written_out_are_letters(tmp_path: Path) -> None:
    path, tokenizer = write(tmp_path, [{"text": WRITTEN}]), byte_tokenizer()
    [letters] = token_lists(path, tokenizer, bos=256)
    assert max(letters) < 256
    assert tokenizer.decode(letters) == WRITTEN
    [meant] = token_lists(path, tokenizer, bos=256, control_tokens=True)
    assert [token for token in meant if token >= 256] == tokenizer.convert_tokens_to_ids(
        ["<|endoftext|>", "<|im_start|>"]
    )


def test_control_tokens_in_what_a_user_says_are_letters_and_those_of_the_template_are_not(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, [{"messages": [{"role": "user", "content": WRITTEN}]}])
    tokenizer = byte_tokenizer()
    [tokens] = token_lists(path, tokenizer, bos=256)
    control = [token for token in tokens if token >= 256]
    assert control == tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokenizer.decode(tokens) == f"<|im_start|>user\n{WRITTEN}<|im_end|>"


def test_control_tokens_in_thoughts_and_calls_of_tools_are_letters(tmp_path: Path) -> None:
    call = {"function": {"arguments": {"query": WRITTEN}}}
    message = {"role": "assistant", "content": "", "thoughts": WRITTEN, "tool_calls": [call]}
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['thoughts'] }}"
        "{{ m['tool_calls'][0]['function']['arguments']['query'] }}<|im_end|>{% endfor %}"
    )
    [tokens] = token_lists(write(tmp_path, [{"messages": [message]}]), tokenizer, bos=256)
    control = [token for token in tokens if token >= 256]
    assert control == tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokenizer.decode(tokens) == f"<|im_start|>{WRITTEN}{WRITTEN}<|im_end|>"


def test_a_control_token_that_is_a_word_of_the_vocabulary_too_does_not_come_up() -> None:
    """A word-level vocabulary splits no word, so that the letters would be the token again."""
    corpus = Corpus(kind="text", path="a.jsonl")
    reader = Reader(corpus, chat_tokenizer(), 0)
    [tokens] = reader.tokens(iter(["the <stop> cat"]))
    assert not {0, 1, 3, 4} & set(tokens)
    [remark] = reader.remarks()
    assert "1 of 1 documents write control tokens out, such as <stop>" in remark
    assert "corpus.control_tokens: true" in remark


def test_texts_without_control_tokens_are_tokenised_as_ever(tmp_path: Path) -> None:
    texts = ["the cat sat", "a dog < ran |> on"]
    path = write(tmp_path, [{"text": text} for text in texts])
    tokenizer = byte_tokenizer()
    both = [token_lists(path, tokenizer, 256, control_tokens=asked) for asked in (True, False)]
    assert both[0] == both[1]
    assert sorted(both[0]) == sorted(tokenizer(texts)["input_ids"])


def test_equal_chats_and_ids_fall_into_one_split(tmp_path: Path) -> None:
    for name, value in (("messages", CHAT), ("input_ids", [1, 2, 3])):
        path = write(tmp_path, [{name: value}] * 9)
        counts = [len(list(documents(corpus_of(path), split))) for split in ("sae", "eval")]
        assert sorted(counts) == [0, 9]
