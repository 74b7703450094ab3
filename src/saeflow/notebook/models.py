"""A model, and what stands at its hooks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from saeflow import options
from saeflow.activations.capture import capture_rows
from saeflow.activations.exclusion import excluded_tokens
from saeflow.activations.sources import TextSource
from saeflow.activations.store import ActivationRows, join
from saeflow.config import Activations, Published
from saeflow.config.section import REPOSITORY
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models import language_model
from saeflow.models.hooks import check_distinct
from saeflow.models.io import fetch_checkpoint
from saeflow.models.language_model import LanguageModel
from saeflow.notebook.texts import Texts, listed, section


def load_model(
    source: str | Path,
    *,
    revision: str = "main",
    file: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> LanguageModel:
    """Load a language model, to run and not to train.

    Args:
        source: a folder with a Hugging Face checkpoint, such as a study's ``models/<model>``; or,
            where there is no such folder, a repository ``owner/name`` of the hub.
        revision: of the repository: a branch, a tag or a commit.
        file: a folder of the repository; None is the whole.
        device: ``cpu``, ``cuda``, …; None is an accelerator where there is one.
        dtype: of the weights: ``float32``, ``bfloat16`` or ``float16``.

    Returns:
        The `transformers` model with its tokenizer and the names of its hooks.

    Raises:
        SaeflowError: there is no such model, a file is missing or broken, the family is not
            supported, or the hub cannot be reached.

    Examples:
        >>> import saeflow as sf
        >>> lm = sf.load_model("models/tiny")
        >>> lm.n_layers, lm.d_model
        (3, 32)
    """
    folder = Path(source)
    on_hub = published(source, revision, file)
    if on_hub:
        folder = fetch_checkpoint(on_hub, "load_model").folder
    lm = language_model.load_model(folder, device or options.accelerator(), dtype)
    if on_hub:
        lm.model.name_or_path = on_hub.repo  # the cache's folder is called by the commit
    return lm


def capture(
    lm: LanguageModel,
    texts: Texts,
    hooks: str | Sequence[str],
    *,
    exclude: Literal["nothing", "bos", "special"] = "nothing",
) -> dict[str, ActivationRows]:
    """Read the activations of texts at some hooks.

    Every text is run for itself, opened with one BOS, so that none sees padding or another.

    Args:
        lm: the model.
        texts: one, several, or blocks of tokens.
        hooks: TransformerLens names, such as ``blocks.2.hook_resid_post``.
        exclude: tokens that give no row.

    Returns:
        By hook, a row per token: ``activations [rows, d_model]`` on the CPU, float32, and of each
        row its token, its position in the text, and which text it is of (``blocks``).

    Raises:
        SaeflowError: there is no such hook, two name one tensor, a text is longer than the model's
            context, or the model gives NaN.

    Examples:
        >>> import saeflow as sf
        >>> lm = sf.load_model("models/tiny")
        >>> rows = sf.capture(lm, "the cat sat", "blocks.1.hook_resid_post")
        >>> rows["blocks.1.hook_resid_post"].activations.shape  # BOS and three words
        torch.Size([4, 32])
    """
    names = dict.fromkeys(listed(hooks))
    check_distinct(lm, list(names))
    settings = section(Activations, {"exclude": exclude}, "capture")
    tokens = (
        [texts.tokens]
        if isinstance(texts, TokenBlocks)
        else [np.array([lm.tokenize(text)], dtype=np.int32) for text in listed(texts)]
    )
    passes = [
        part
        for number, items in enumerate(tokens)
        for part in capture_rows(
            TextSource(lm, items), list(names), settings, excluded_tokens(lm, settings), number
        )
    ]
    return {hook: join([part[hook] for part in passes]) for hook in names}


def published(source: str | Path, revision: str, file: str | None) -> Published | None:
    """A repository of the hub that is meant; None where a folder is.

    Raises:
        SaeflowError: the file or the revision is none.
    """
    if Path(source).exists() or not re.match(REPOSITORY, str(source)):
        return None
    said = {"repo": str(source), "revision": revision, "file": file}
    return section(Published, said, str(source))
