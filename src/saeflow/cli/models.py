"""``saeflow model``: train, link and evaluate the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options
from saeflow.artifacts import check_replaceable

app = typer.Typer(help="Provide the language model.", no_args_is_help=True)
ENTROPY_BLOCKS = 256
COMPARED_BLOCKS = 64


@app.command()
def train(
    corpus: options.Corpus,
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: options.Checkpoint,
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Train a small Llama-architecture model on the corpus `tales`; an interrupted run goes on
    where it stopped."""
    check_replaceable(output)
    options.use_device(threads)
    from saeflow.corpora.io import load_blocks
    from saeflow.corpora.tales import tokenizer
    from saeflow.models.io import save_model
    from saeflow.models.training import train_model

    blocks = load_blocks(corpus)
    trained = train_model(
        options.parsed(config.ModelTraining, settings),
        blocks,
        tokenizer(),
        seed,
        checkpoint,
        options.progress("train model, steps"),
        device=options.device(),
    )
    save_model(
        output,
        trained,
        {"train_loss": float(trained.curve["loss"][-1]), "train_tokens": blocks.tokens.size},
    )
    options.repeat_checksums(output, checksums)
    checkpoint.unlink(missing_ok=True)


@app.command()
def tune(
    base: Annotated[Path, typer.Option(help="Folder of the model that is copied.")],
    pairs: Annotated[Path, typer.Option(help="File of pairs of prompt and answer.")],
    settings: options.Settings,
    seed: options.Seed,
    checkpoint: options.Checkpoint,
    output: options.Output,
    checksums: options.Checksums = None,
    threads: options.Threads = 1,
) -> None:
    """Tune a copy of a model on pairs; an interrupted tuning goes on where it stopped."""
    check_replaceable(output)
    options.use_device(threads)
    from saeflow.config.reading import read_pairs
    from saeflow.models.io import save_model
    from saeflow.models.language_model import load_to_train
    from saeflow.models.training import TrainedModel
    from saeflow.models.tuning import split_pairs, tune_model

    asked = options.parsed(config.Tuning, settings)
    split = split_pairs(read_pairs(pairs), asked.held_out, seed)
    lm = load_to_train(base, options.device())
    beat = options.progress("tune model, steps")
    curve = tune_model(lm, asked, split.learned, seed, checkpoint, beat)
    last = curve["loss"].tail(max(1, len(curve) // 10)).mean()
    record = {"train_loss": last, "pairs": len(split.learned), "held_out": len(split.held_out)}
    save_model(output, TrainedModel(lm.model.cpu(), lm.tokenizer, curve), record)
    options.repeat_checksums(output, checksums)
    checkpoint.unlink(missing_ok=True)


@app.command()
def compare(
    base: Annotated[Path, typer.Option(help="Folder of the model that was copied.")],
    model: options.ModelFolder,
    pairs: Annotated[Path, typer.Option(help="File of pairs of prompt and answer.")],
    corpus: options.Corpus,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Tell what tuning changed: answers to prompts that were not learned, and the loss on text."""
    options.use_device(threads)
    import polars as pl

    from saeflow.config.reading import read_pairs
    from saeflow.corpora.io import load_blocks
    from saeflow.judging.tuning import TUNING_SCHEMA, tuning_rows
    from saeflow.tables import write_table

    asked, learned = options.parsed(config.Tuning, settings), read_pairs(pairs)
    blocks = load_blocks(corpus).tokens[:COMPARED_BLOCKS]
    tables = [
        tuning_rows(
            options.open_model(folder, dtype),
            folder.name,
            asked,
            learned,
            blocks,
            seed,
            options.progress(f"answers of {folder.name}"),
        )
        for folder in (base, model)
    ]
    write_table(output, pl.concat(tables), TUNING_SCHEMA)


@app.command()
def provide(output: options.Output, checksums: options.Checksums = None) -> None:
    """Put the model that comes with saeflow into the study, which would train the same."""
    import shutil

    from saeflow.artifacts import atomic
    from saeflow.config.embedded import EMBEDDED

    with atomic(output) as temporary:
        shutil.copytree(EMBEDDED, temporary)
    options.repeat_checksums(output, checksums)


@app.command()
def link(
    path: Annotated[Path, typer.Option(help="A Hugging Face checkpoint directory.")],
    output: options.Output,
    checksums: options.Checksums = None,
) -> None:
    """Point the study at a checkpoint on disk, and record what it holds."""
    from saeflow.models.io import link_model

    link_model(path, output)
    options.repeat_checksums(output, checksums)


@app.command()
def convert(
    path: Annotated[Path, typer.Option(help="A file in GGUF format.")],
    output: options.Output,
    checksums: options.Checksums = None,
) -> None:
    """Make a checkpoint of a GGUF file: weights in float32, tokenizer, chat template."""
    check_replaceable(output)
    options.set_pools(1)
    from saeflow.models.io import convert_model

    convert_model(path, output)
    options.repeat_checksums(output, checksums)


@app.command()
def evaluate(
    model: options.ModelFolder,
    corpus: options.Corpus,
    kind: Annotated[
        str,
        typer.Option(help="Kind of the corpus: tales, whose entropy is known, or text."),
    ],
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure the model's loss and, on `tales`, how far it is above the entropy of the grammar."""
    options.use_device(threads)
    import numpy as np

    from saeflow.artifacts import write_sealed_json
    from saeflow.corpora.io import load_blocks
    from saeflow.models.evaluation import block_losses
    from saeflow.provenance import provenance

    lm = options.open_model(model, dtype)
    blocks = load_blocks(corpus)
    losses = block_losses(lm, blocks.tokens)
    metrics: dict[str, object] = {
        "model": model.name,
        "loss": float(losses.mean()),
        "tokens": int(losses.size),
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "n_layers": lm.n_layers,
        "d_model": lm.d_model,
        "d_vocab": lm.d_vocab,
        "dtype": dtype,
    }
    if kind == "tales":
        from saeflow.corpora.tales import token_log_probs

        sample = blocks.tokens[:ENTROPY_BLOCKS]
        entropy = -float(
            np.concatenate([token_log_probs(row.tolist())[1:] for row in sample]).mean()
        )
        metrics |= {
            "entropy": entropy,
            "entropy_tokens": int(sample[:, 1:].size),
            "gap": float(losses[: len(sample)].mean()) - entropy,
        }
    write_sealed_json(output, metrics | {"provenance": provenance()})
