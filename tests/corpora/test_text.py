"""Text files become documents, documents become splits and blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_models import save_tiny_model, tiny_tokenizer

from saeflow.config.sections import Corpus, Tokens
from saeflow.corpora.io import load_blocks, save_blocks
from saeflow.corpora.text import documents, tokenised_blocks
from saeflow.corpora.tokens import TokenBlocks, pack
from saeflow.errors import SaeflowError
from saeflow.models.language_model import load_model, opening_token

TEXTS = [f"Document number {i} speaks of {i * i}." for i in range(300)]


class ByteTokenizer:
    """Bytes as tokens, 256 opens a text; as much of a tokenizer as packing needs."""

    def __call__(
        self, texts: list[str], add_special_tokens: bool, verbose: bool
    ) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode()) for text in texts]}


def write(directory: Path, kind: str) -> Corpus:
    path = directory / f"corpus.{kind}"
    if kind == "txt":
        path.write_text("\n\n".join(TEXTS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    else:
        pl.DataFrame({"text": TEXTS}).write_parquet(path)
    return Corpus(kind="text", path=str(path), context=16, tokens=Tokens(sae=4096, eval=1024))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_splits_are_disjoint_and_together_the_whole_file(tmp_path: Path, kind: str) -> None:
    corpus = write(tmp_path, kind)
    sae, held_out = list(documents(corpus, "sae")), list(documents(corpus, "eval"))
    assert not set(sae) & set(held_out)
    assert sorted(sae + held_out) == sorted(TEXTS)
    assert 0.7 < len(sae) / len(TEXTS) < 0.9
    assert not list(documents(corpus, "model"))


def test_equal_documents_fall_into_one_split(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(["the same", "other"] * 20))
    corpus = Corpus(kind="text", path=str(path))
    counts = [list(documents(corpus, split)).count("the same") for split in ("sae", "eval")]
    assert sorted(counts) == [0, 20]


def test_packing_keeps_every_token_in_order_and_opens_blocks_with_bos() -> None:
    stream = [[1, 2, 3, 4, 5], [6, 7], [8], [9, 10, 11, 12]]
    blocks = pack(stream, context=4, bos_id=0, blocks=4)
    assert blocks.tokens.tolist() == [[0, 1, 2, 3], [0, 4, 5, 0], [0, 6, 7, 0], [0, 8, 0, 9]]


def test_documents_that_are_not_joined_never_share_a_block() -> None:
    stream = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16]]
    blocks = pack(stream, context=4, bos_id=0, blocks=4, join=False)
    assert blocks.tokens.tolist() == [[0, 1, 2, 3], [0, 8, 9, 10], [0, 11, 12, 13], [0, 14, 15, 16]]


def test_packing_draws_no_more_documents_than_it_needs() -> None:
    drawn = []
    pack((drawn.append(i) or [1, 2, 3] for i in range(100)), context=4, bos_id=0, blocks=2)  # type: ignore[func-returns-value]
    assert len(drawn) <= 3


def test_a_bos_that_a_template_wrote_into_a_document_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "chats.txt"
    words = "the cat sat on the mat and then a dog ran under a tree ."
    path.write_text(
        "\n\n".join(f"<bos> {'<bos> ' * (i % 2)}{words} {'and ' * i}" for i in range(200))
    )
    corpus = Corpus(
        kind="text",
        path=str(path),
        context=8,
        tokens=Tokens(sae=1024, eval=1024),
        join=False,
        control_tokens=True,
    )
    tokens = tokenised_blocks(corpus, "sae", tiny_tokenizer(), 0).tokens
    assert (tokens[:, 0] == 0).all()
    assert (tokens[:, 1:] != 0).all()


def test_a_corpus_that_is_too_short_says_how_much_it_holds(tmp_path: Path) -> None:
    corpus = write(tmp_path, "txt").model_copy(update={"tokens": Tokens(sae=1_000_000)})
    with pytest.raises(
        SaeflowError, match=r"corpus: holds \d+ tokens, which fill \d+ of 62500 blocks of 16"
    ):
        tokenised_blocks(corpus, "sae", ByteTokenizer(), 256)  # type: ignore[arg-type]


def test_texts_open_with_the_token_that_the_model_opens_texts_with(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "llama", bos_token_id=7)
    assert opening_token(folder) == load_model(folder).bos_id == 0
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (file := folder / name).is_file():
            file.write_text(
                json.dumps(
                    {
                        key: v
                        for key, v in json.loads(file.read_text()).items()
                        if key != "bos_token"
                    }
                )
            )
    assert opening_token(folder) == load_model(folder).bos_id == 7  # only the config names one


def test_tokenised_blocks_hold_the_text_of_their_split(tmp_path: Path) -> None:
    corpus = write(tmp_path, "jsonl")
    blocks = tokenised_blocks(corpus, "eval", ByteTokenizer(), 256)  # type: ignore[arg-type]
    assert blocks.tokens.shape == (64, 16)
    assert (blocks.tokens[:, 0] == 256).all()
    written = bytes(t for t in blocks.tokens[:, 1:].ravel() if t < 256).decode()
    assert "".join(documents(corpus, "eval")).startswith(written)


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "data").mkdir(parents=True)
    for name, part in (
        ("data/train-00000.parquet", TEXTS[:100]),
        ("data/train-00001.parquet", TEXTS[100:]),
    ):
        pl.DataFrame({"text": part}).write_parquet(folder / name)
    (folder / "README.md").write_text("not text")
    read = [
        list(documents(Corpus(kind="text", path=str(folder), order="files"), split))
        for split in ("sae", "eval")
    ]
    assert sorted(read[0] + read[1]) == sorted(TEXTS)
    order = [TEXTS.index(text) for text in read[0]]
    assert order == sorted(order)
    for file in (folder / "data").iterdir():
        file.unlink()
    with pytest.raises(SaeflowError, match=r"holds no file of text, \.txt, \.jsonl"):
        list(documents(Corpus(kind="text", path=str(folder)), "sae"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.xlsx", "a,b", "is not one of .txt, .jsonl"),
        ("corpus.gz", "a,b", "is not one of .txt, .jsonl"),
        (
            "corpus.jsonl",
            '{"id": "1", "body": "x y"}\n',
            "line 1: has no field 'text' but id, body; set corpus.field, for example to body",
        ),
        ("corpus.jsonl", "3\n", "line 1: is a int, no record with fields"),
        ("corpus.jsonl", "[\n", "line 1: is not JSON .* is a .json file: rename it"),
        ("corpus.json", '[{"text": "x"}, ', "its list of records has no end"),
        ("corpus.json", '[{"text": "x"}, {"text": ]', "record 2: is not JSON"),
        ("corpus.json", '{"text": ' + "[" * 100_000, "its JSON is nested too deep"),
        ("corpus.csv", 'text\n"x" y', "line 1: is no table with ',' between"),
        ("corpus.arrow", "ARROW1xxxxxxxxxxx", "is not a whole Arrow file"),
        ("corpus.txt.gz", "no gzip", "is cut or damaged"),
        ("corpus.jsonl", "{\n", "line 1: is not JSON"),
        ("corpus.jsonl", '{"text": ["x"]}\n', "line 1: has no text but a list in the field 'text'"),
        ("corpus.jsonl", '{"text": "x"}\n{"body": "x"}\n', "line 2: has no field 'text', unlike"),
        (
            "corpus.jsonl",
            '{"text": "x"}\n{"text": "\\ud83d cut"}\n',
            r"line 2: holds half of a character \(.ud83d",
        ),
        ("corpus.jsonl", '{"text": ' + "[" * 100_000 + "\n", "line 1: its JSON is nested too deep"),
        ("corpus.jsonl", "1" * 5000 + "\n", "line 1: is not JSON"),
        ("corpus.parquet", "PAR0", "is not a whole Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SaeflowError, match=message):
        list(documents(Corpus(kind="text", path=str(tmp_path / name)), "sae"))


def test_a_column_of_a_parquet_file_that_holds_no_text_is_one_sentence(tmp_path: Path) -> None:
    pl.DataFrame({"ids": [[1, 2], [3]]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SaeflowError, match=r"'ids'; name it in corpus.token_ids instead"):
        list(documents(Corpus(kind="text", path=str(tmp_path / "a.parquet"), field="ids"), "sae"))


def test_a_small_file_of_giant_documents_is_one_sentence(tmp_path: Path) -> None:
    """300 MB of one letter in some kilobytes."""
    path = tmp_path / "bomb.parquet"
    pl.DataFrame({"text": ["a" * (300 << 20)]}).write_parquet(path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(SaeflowError, match=r"declares 314,5.+ bytes and has"):
        list(documents(Corpus(kind="text", path=str(path)), "sae"))


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    for name, content in (
        ("a.txt", "\ufeffone\n\ntwo"),
        ("a.jsonl", '\ufeff{"text": "one"}\n{"text": "two"}'),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        corpus = Corpus(kind="text", path=str(tmp_path / name))
        assert sorted(text for split in ("sae", "eval") for text in documents(corpus, split)) == [
            "one",
            "two",
        ]


def test_blocks_survive_the_way_to_disk_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = TokenBlocks(
        rng.integers(0, 90, (5, 8), dtype=np.int32),
        {"topic": rng.integers(0, 3, (5, 8), dtype=np.uint8)},
        {"topic": ["neutral", "love", "french"]},
    )
    save_blocks(tmp_path / "blocks.safetensors", blocks)
    back = load_blocks(tmp_path / "blocks.safetensors")
    assert np.array_equal(back.tokens, blocks.tokens)
    assert np.array_equal(back.labels["topic"], blocks.labels["topic"])
    assert back.label_names == blocks.label_names


def test_some_blocks_are_read_without_the_others(tmp_path: Path) -> None:
    tokens = np.arange(40, dtype=np.int32).reshape(5, 8)
    save_blocks(
        tmp_path / "b.safetensors",
        TokenBlocks(tokens, {"topic": tokens.astype(np.uint8)}, {"topic": ["a"]}),
    )
    part = load_blocks(tmp_path / "b.safetensors", slice(3, 9))
    assert np.array_equal(part.tokens, tokens[3:])
    assert np.array_equal(part.labels["topic"], tokens[3:])
    with pytest.raises(SaeflowError, match="has 5 blocks; there are none from block 5 on"):
        load_blocks(tmp_path / "b.safetensors", slice(5, 9))


def test_a_damaged_file_of_blocks_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "blocks.safetensors"
    save_blocks(path, TokenBlocks(np.zeros((4, 8), np.int32), {}, {}))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(SaeflowError, match="is damaged"):
        load_blocks(path)
