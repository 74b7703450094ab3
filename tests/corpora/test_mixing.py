"""Files of a folder take turns, by their sizes or by weights, and in the same way every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_models import tiny_tokenizer

from saeflow.config.section import ContradictionError
from saeflow.config.sections import Corpus, Tokens
from saeflow.corpora.mixing import in_turn, shuffled
from saeflow.corpora.text import documents, tokenised_blocks
from saeflow.errors import SaeflowError

KINDS = {"cat": 3, "dog": 4, "tree": 12}  # a word each, and its id in the tiny tokenizer


def folder(tmp_path: Path, files: dict[str, tuple[str, int]]) -> Path:
    """Files of documents that are one word over and over, and a number that tells them apart."""
    for name, (word, count) in files.items():
        file = tmp_path / "text" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        texts = (f"{' '.join([word] * 20)} {i}" for i in range(count))
        file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return tmp_path / "text"


def words_in(path: Path | list[str], sae: int, **settings: object) -> Counter[str]:
    named = path if isinstance(path, list) else str(path)
    corpus = Corpus.model_validate(
        {"kind": "text", "path": named, "context": 16, "tokens": Tokens(sae=sae), **settings}
    )
    tokens = tokenised_blocks(corpus, "sae", tiny_tokenizer(), 0).tokens
    vocabulary = tiny_tokenizer().get_vocab()
    return Counter(
        {word: int((tokens == vocabulary[word]).sum()) for word in ("cat", "dog", "tree")}
    )


def test_what_is_furthest_behind_its_share_comes_next() -> None:
    items = in_turn([(2.0, iter("aaaaaa")), (1.0, iter("bbb"))], len)
    assert "".join(items) == "abaabaaba"


def test_no_more_are_begun_at_once_than_asked() -> None:
    begun: list[str] = []

    def part(name: str) -> tuple[float, list[str]]:
        begun.append(name)
        return 1.0, [name] * 4

    parts = ((share, iter(items)) for share, items in map(part, "abcdef"))
    seen = []
    for item in in_turn(parts, len, at_once=2):
        seen.append(item)
        assert len(begun) <= 2 + sum(seen.count(name) == 4 for name in begun)
    assert sorted(seen) == sorted("abcdef" * 4)


def test_files_of_a_folder_are_mixed_by_their_sizes(tmp_path: Path) -> None:
    path = folder(tmp_path, {"code.jsonl": ("cat", 600), "wiki.jsonl": ("dog", 200)})
    words = words_in(path, 8192)  # less than half of what is there
    assert 2.5 < words["cat"] / words["dog"] < 3.5


def test_many_files_of_two_kinds_are_mixed_from_the_start(tmp_path: Path) -> None:
    files = {f"code/{i:03}.jsonl": ("cat", 30) for i in range(40)}
    files |= {f"wiki/{i:03}.jsonl": ("dog", 30) for i in range(40)}
    words = words_in(folder(tmp_path, files), 4096)
    assert 0.2 < words["dog"] / (words["cat"] + words["dog"]) < 0.8


def test_files_one_after_another_where_that_is_asked(tmp_path: Path) -> None:
    path = folder(tmp_path, {"code.jsonl": ("cat", 600), "wiki.jsonl": ("dog", 200)})
    assert words_in(path, 4096, order="files")["dog"] == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_weights_are_shares_of_the_tokens(tmp_path: Path, share: float) -> None:
    files = {f"code/{i}.jsonl": ("cat", 300) for i in range(2)}
    files |= {"wiki.jsonl": ("dog", 600), "left-out.jsonl": ("tree", 50)}
    weights = {"code/*": share, "left-*": 0.0, "*": 1 - share}
    words = words_in(folder(tmp_path, files), 8192, weights=weights)
    assert words["tree"] == 0
    assert words["cat"] / (words["cat"] + words["dog"]) == pytest.approx(share, abs=0.03)


def test_a_list_of_files_and_folders_is_mixed_as_a_folder_is(tmp_path: Path) -> None:
    files = {"a/chats.jsonl": ("cat", 400), "b/books/1.jsonl": ("dog", 400)}
    text = folder(tmp_path, {**files, "b/books/2.jsonl": ("dog", 400), "c.jsonl": ("tree", 400)})
    paths = [str(text / name) for name in ("a/chats.jsonl", "b/books", "c.jsonl")]
    by_sizes = words_in(paths, 8192)
    assert 1.5 < by_sizes["dog"] / by_sizes["cat"] < 2.5
    assert 0.7 < by_sizes["tree"] / by_sizes["cat"] < 1.4
    weights = {"chats.jsonl": 0.7, "books/*": 0.3, "*": 0.0}
    weighed = words_in(paths, 8192, weights=weights)
    assert weighed["tree"] == 0
    assert weighed["cat"] / (weighed["cat"] + weighed["dog"]) == pytest.approx(0.7, abs=0.03)
    one_by_one = words_in(paths[::-1], 4096, order="files")
    assert one_by_one["tree"] > 0 == one_by_one["cat"]


def test_a_file_that_two_paths_name_is_refused(tmp_path: Path) -> None:
    text = folder(tmp_path, {"a.jsonl": ("cat", 20), "b.jsonl": ("dog", 20)})
    paths = [str(text), str(text / "a.jsonl")]
    with pytest.raises(SaeflowError, match=r"a\.jsonl' stands in two of the paths .*name it once"):
        list(documents(Corpus(kind="text", path=paths), "sae"))


def test_a_share_that_its_files_cannot_fill_is_one_sentence(tmp_path: Path) -> None:
    path = folder(tmp_path, {"code.jsonl": ("cat", 600), "wiki.jsonl": ("dog", 20)})
    with pytest.raises(SaeflowError, match=r"corpus\.weights: the files of 'wiki\*' hold \d+ tok"):
        words_in(path, 8192, weights={"code*": 0.5, "wiki*": 0.5})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"code*": 1.0}, "no pattern matches 'wiki.jsonl'"),
        ({"*": 1.0, "news*": 1.0}, r"'news\*' matches no file"),
    ],
)
def test_weights_that_do_not_fit_the_names_are_one_sentence(
    tmp_path: Path, weights: dict[str, float], message: str
) -> None:
    path = folder(tmp_path, {"code.jsonl": ("cat", 60), "wiki.jsonl": ("dog", 20)})
    with pytest.raises(SaeflowError, match=message):
        list(documents(Corpus(kind="text", path=str(path), weights=weights), "sae"))


@pytest.mark.parametrize(
    "settings",
    [
        {"path": "a.jsonl", "weights": {"*": 1.0}},
        {"path": "folder", "weights": {"*": 0.0}},
        {"path": "folder", "weights": {"*": 1.0}, "order": "files"},
        {"path": "folder", "messages": "a", "token_ids": "b"},
        {"path": "folder", "messages": "a", "field": "b"},
    ],
)
def test_keys_that_contradict_each_other_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises((ValueError, ContradictionError)):
        Corpus.model_validate({"kind": "text", **settings})


def test_shuffling_keeps_every_document_and_is_the_same_every_time() -> None:
    orders = [list(shuffled(iter(range(500)), 100, seed, "corpus")) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(500)) != orders[0]
    assert list(shuffled(iter(range(9)), 0, 0, "corpus")) == list(range(9))


def test_the_order_in_which_files_were_written_changes_nothing(tmp_path: Path) -> None:
    files = {f"{name}.jsonl": (name, 30) for name in ("cat", "dog", "tree")}
    first = folder(tmp_path / "a", files)
    second = folder(tmp_path / "b", dict(reversed(files.items())))
    read = [list(documents(Corpus(kind="text", path=str(path)), "sae")) for path in (first, second)]
    assert read[0] == read[1]


def test_what_tells_of_text_is_not_read_as_text(tmp_path: Path) -> None:
    path = folder(tmp_path, {"data/a.jsonl": ("cat", 30), ".cache/b.jsonl": ("dog", 30)})
    for name in ("dataset_info.json", "state.json", "published.json", "notes.json"):
        (path / name).write_text('{"what": "no text"}')
    assert {str(text)[:3] for text in documents(Corpus(kind="text", path=str(path)), "sae")} == {
        "cat"
    }
