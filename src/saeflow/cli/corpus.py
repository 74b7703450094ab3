"""``saeflow corpus``: text to blocks of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options

app = typer.Typer(help="Turn text into blocks of tokens.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Turn text into blocks of tokens."""


@app.command()
def write(
    settings: options.Settings,
    seed: options.Seed,
    split: Annotated[str, typer.Option(help="model, sae or eval.")],
    output: options.Output,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the model whose tokenizer is used; not for tales."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            help="A file or folder with the text, where it is not where path says; one for each.",
        ),
    ] = None,
) -> None:
    """Write one split of the corpus."""
    from saeflow.corpora import io, text
    from saeflow.corpora.tales import story_blocks
    from saeflow.errors import SaeflowError

    if split not in (splits := config.Tokens.model_fields):
        raise SaeflowError(
            f"corpus write: there is no split '{split}'; there are {', '.join(splits)}"
        )
    corpus = options.parsed(config.Corpus, settings)
    if corpus.kind == "tales":
        blocks = story_blocks(
            seed, split, getattr(corpus.tokens, split) // corpus.context, corpus.context
        )
    elif model is None:
        raise SaeflowError(
            "corpus write: text needs a tokenizer; name the model's folder with --model"
        )
    else:
        from saeflow.config.model_files import context_in, too_long
        from saeflow.models.language_model import checkpoint_of, load_tokenizer, opening_token

        if (context := context_in(checkpoint_of(model))) and corpus.context > context:
            raise SaeflowError(
                f"corpus.context: {too_long(corpus.context, context, f'the model in {model}')}"
            )
        if files:
            corpus = corpus.model_copy(update={"path": [str(file) for file in files]})
        blocks = text.tokenised_blocks(
            corpus,
            split,
            load_tokenizer(model),
            opening_token(model),
            seed,
            lambda sentence: options.say(sentence, err=True),
        )
    io.save_blocks(output, blocks)
