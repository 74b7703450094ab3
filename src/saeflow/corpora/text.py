"""Documents of local files, split so that no document is in two splits, and blocks of their
tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saeflow.config.sections import Corpus
from saeflow.config.text_files import KINDS_IN_WORDS, kind_of, packing_of
from saeflow.corpora.content import (
    Content,
    Document,
    characters,
    columns_of,
    content_of,
    document_of,
)
from saeflow.corpora.mixing import in_turn, shuffled
from saeflow.corpora.records import Wanted, records_of, samples_of
from saeflow.corpora.shares import Share, shares
from saeflow.corpora.tokenising import Reader
from saeflow.corpora.tokens import TokenBlocks, pack
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAE_SHARE = (
    0.8  # the rest is "eval"; no model is trained on a text file, so its split "model" is empty
)
_LOOKED_AT = 8  # files of a share, before any job
_FILES_AT_ONCE = 16  # of a folder, each with a piece in memory
_NOTHING = " \t\r\n\0"


def documents(corpus: Corpus, split: str) -> Iterator[Document]:
    """The documents of one split; empty ones are left out.

    Equal documents are in the same split: it follows from the document's hash alone. Those of one
    file come in its order; files of a folder take turns by their sizes, or their weights, unless
    ``corpus.order`` says one after another.

    Args:
        corpus: with ``path``, files or folders of them, and what of these is read.
        split: ``model``, ``sae`` or ``eval``.

    Raises:
        SaeflowError: a file is absent, damaged, of an unknown kind, or lacks the field.
    """
    parts = [(share.weight, documents_of(share, corpus, split)) for share in shares(corpus)]
    return in_turn(parts, characters)


def documents_of(share: Share, corpus: Corpus, split: str) -> Iterator[Document]:
    """The documents of one split that files with one share hold, in the order of `documents`."""
    files = share.files
    if len(files) > 1 and corpus.order == "mixed":
        # Kinds of text have names of a kind, so that neighbours by name are alike.
        by_hash = sorted(
            files, key=lambda file: _digest(file.name.encode() + file.parent.name.encode())
        )
        parts = ((max(1.0, file.stat().st_size), _read(file, corpus)) for file in by_hash)
        every = in_turn(parts, characters, _FILES_AT_ONCE)
    else:
        every = chain.from_iterable(_read(file, corpus) for file in files)
    for document in every:
        if not _is_empty(document) and split_of(document) == split:
            yield document


def tokenised_blocks(
    corpus: Corpus,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    bos_id: int,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> TokenBlocks:
    """Tokenise one split and fill ``corpus.tokens.<split> // context`` blocks with it.

    Args:
        corpus: its ``context`` and ``tokens`` say how many blocks of which length, ``join`` whether
            documents share them.
        split: ``sae`` or ``eval``.
        tokenizer: of the model.
        bos_id: the model's token that opens a text.
        seed: of the study, for ``corpus.shuffle``.
        tell: takes sentences about what was read otherwise than it may have been meant.

    Raises:
        SaeflowError: the split holds fewer tokens than asked, or what `saeflow.corpora.text` and
            the chat template refuse.
    """
    blocks = int(getattr(corpus.tokens, split)) // corpus.context
    reader = Reader(corpus, tokenizer, bos_id)

    def tokens_of(share: Share) -> Iterator[list[int]]:
        texts = documents_of(share, corpus, split)
        name = ["corpus", "shuffle", split, *([share.pattern] if share.pattern else [])]
        count = 0
        for tokens in reader.tokens(shuffled(texts, corpus.shuffle, seed, *name)):
            count += len(tokens)
            yield tokens
        if share.pattern:
            raise SaeflowError(
                f"corpus.weights: the files of '{share.pattern}' hold {count} tokens, fewer than "
                f"their share; give it less, set corpus.tokens.{split} lower or add text"
            )

    parts = [(share.weight, tokens_of(share)) for share in shares(corpus)]
    try:
        return pack(in_turn(parts, len), corpus.context, bos_id, blocks, corpus.join)
    except SaeflowError as error:
        hint = ""
        where = " and ".join(corpus.paths)
        if reader.documents < 2 and ".txt" in where.lower():
            hint = (
                f"; {corpus.separator!r} parts it into {reader.documents} documents of this split: "
                'set corpus.separator to what stands between them, for example "\\n"'
            )
        raise SaeflowError(f"{error} (split '{split}' of {where}{hint})") from None
    finally:
        for sentence in reader.remarks():
            tell(sentence)


def split_of(document: Document) -> str:
    """The split a document belongs to, by its hash."""
    if isinstance(document, str):
        data = document.strip().encode()
    elif isinstance(document[0], int):
        data = np.asarray(document, dtype=np.int64).tobytes()
    else:
        data = json.dumps(document, sort_keys=True, default=str).encode()
    place = int.from_bytes(_digest(data), "big") / 2.0**64
    return "sae" if place < _SAE_SHARE else "eval"


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _is_empty(document: Document) -> bool:
    return not (document.strip(_NOTHING).strip() if isinstance(document, str) else document)


def contents(corpus: Corpus) -> Iterator[tuple[Path, Content]]:
    """What is read of files of records, each told by its columns or its first record: of the first
    files of each share, but for packed tables, which would have to be unpacked whole.

    Raises:
        SaeflowError: a file lacks what the config names, or something else stands there.
    """
    wanted = Wanted(partial(columns_of, corpus), corpus.separator)
    for file in chain.from_iterable(share.files[:_LOOKED_AT] for share in shares(corpus)):
        if kind_of(file.name) == ".txt" or (_is_table(file) and packing_of(file.name)):
            continue
        if kind_of(file.name) == ".parquet":
            yield file, content_of(corpus, samples_of(file), str(file))
            continue
        for value, where in records_of(file, wanted, "corpus.path"):
            if not isinstance(value, str):
                content = content_of(corpus, value if isinstance(value, dict) else {}, where)
                document_of(content, value, where)
                yield file, content
            break


def _is_table(file: Path) -> bool:
    return kind_of(file.name) in (".parquet", ".arrow")


def _read(path: Path, corpus: Corpus) -> Iterator[Document]:
    content: Content | None = None
    wanted = Wanted(partial(columns_of, corpus), corpus.separator)
    try:
        for value, where in records_of(path, wanted, "corpus.path"):
            if isinstance(value, str):
                yield value
                continue
            if content is None and isinstance(value, dict):
                content = content_of(corpus, value, where)
            yield document_of(content or Content("field", corpus.fields), value, where)
    except FileNotFoundError:
        raise SaeflowError(
            f"corpus.path: '{path}' does not exist; name a file, {KINDS_IN_WORDS}, or a folder of "
            "them"
        ) from None
