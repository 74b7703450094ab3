"""Texts as a study has them: in blocks of tokens, and as a cache of activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from saeflow.activations.capture import capture_rows
from saeflow.activations.exclusion import excluded_tokens
from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.sources import TextSource
from saeflow.config import Activations, Section
from saeflow.config.reading import checked
from saeflow.corpora.tokens import TokenBlocks, pack
from saeflow.errors import SaeflowError
from saeflow.models.hooks import check_distinct
from saeflow.models.language_model import LanguageModel
from saeflow.saes.sae import SAE

Texts = str | Sequence[str] | TokenBlocks
"""A text, several, or blocks of tokens of a corpus."""
Settings = Mapping[str, Any]
"""A section of a study's config, as YAML has it."""
S = TypeVar("S", bound=Section)


def listed(texts: str | Sequence[str]) -> list[str]:
    """The texts, of which there may be one."""
    return [texts] if isinstance(texts, str) else list(texts)


def in_blocks(lm: LanguageModel, texts: Texts, context: int) -> TokenBlocks:
    """Texts in blocks of tokens as a study's corpus has them: one after another, BOS between them.

    Args:
        lm: the model, whose tokenizer is used.
        texts: blocks are left as they are.
        context: tokens per block, BOS included; fewer where the model or the texts are shorter.

    Raises:
        SaeflowError: the texts hold no token.
    """
    if isinstance(texts, TokenBlocks):
        return texts
    documents = [lm.tokenize(text, bos=False) for text in listed(texts)]
    tokens = sum(map(len, documents))
    if not tokens:
        raise SaeflowError("texts: hold no token; give a text, several, or TokenBlocks")
    width = max(1, min(context, lm.context, tokens + 1) - 1)
    return pack(documents, width + 1, lm.bos_id, tokens // width)


@contextmanager
def cached(
    lm: LanguageModel, hooks: Sequence[str], blocks: TokenBlocks
) -> Iterator[list[ActivationStore]]:
    """Caches of the activations at every hook, as a study writes them, in a folder that is gone
    afterwards; `TMPDIR` says where.

    Raises:
        SaeflowError: a hook does not exist, or two name one tensor.
    """
    check_distinct(lm, hooks)
    settings = Activations()
    rows = capture_rows(
        TextSource(lm, blocks.tokens), hooks, settings, excluded_tokens(lm, settings)
    )
    about = {"model": name_of(lm), "shard": 0}
    with TemporaryDirectory(prefix="saeflow-") as folder:
        paths = {hook: shard_path(Path(folder) / hook, 0, settings) for hook in hooks}
        write_shards(paths, rows, settings, about)
        for path in paths.values():
            write_manifest(path.parent, [path])
        yield [ActivationStore.open(path.parent) for path in paths.values()]


def name_of(lm: LanguageModel) -> str:
    """The name of a model: that of its folder or repository."""
    return Path(lm.model.name_or_path).name or str(lm.model.config.model_type)


def hook_of(sae: SAE, hook: str | None) -> str:
    """Where an SAE reads: at a hook that is given, or where it says that it was trained.

    Raises:
        SaeflowError: neither says.
    """
    said = hook or sae.metadata.get("hook_name")
    if not said:
        raise SaeflowError("sae: does not say where it reads; give its hook")
    return str(said)


def section(kind: type[S], settings: S | Settings | None, name: str) -> S:
    """Settings as a section of a study's config has them.

    Args:
        kind: of section.
        settings: the section, or what YAML would say; None is every default.
        name: what complaints open with.

    Raises:
        SaeflowError: a key is unknown or wrong.
    """
    return settings if isinstance(settings, kind) else checked(kind, dict(settings or {}), name)
