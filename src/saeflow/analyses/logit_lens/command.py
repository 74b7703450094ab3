"""``saeflow logit_lens``: what latents do to the logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import options
from saeflow.analyses.logit_lens.settings import Causal, Enrichment, Projection, TokenSetSelection

if TYPE_CHECKING:
    from saeflow.analyses.logit_lens.io import SavedSets
    from saeflow.analyses.logit_lens.lens_tables import LensInput

app = typer.Typer(help="Look at latents through the unembedding.", no_args_is_help=True)

SetFolder = Annotated[
    Path, typer.Option("--sets", help="Folder of the token sets and the vocabulary.")
]
Through = Annotated[
    str, typer.Option("--projection", help="The section `logit_lens.projection`, as JSON.")
]
ExampleFolder = Annotated[
    Path | None, typer.Option("--examples", help="Folder of the latents' examples.")
]


@app.command()
def sets(
    model: options.ModelFolder,
    settings: options.Settings,
    output: options.Output,
    files: Annotated[
        list[Path] | None, typer.Argument(help="YAML files with token sets of your own.")
    ] = None,
) -> None:
    """Find the token sets of a model's vocabulary."""
    options.set_pools(1)

    from saeflow.analyses.logit_lens.io import read_set_files, save_sets
    from saeflow.analyses.logit_lens.token_sets import token_sets
    from saeflow.config.model_files import vocabulary_in
    from saeflow.models.language_model import checkpoint_of, load_tokenizer
    from saeflow.models.vocabulary import vocabulary

    chosen = options.parsed(TokenSetSelection, settings)
    d_vocab = vocabulary_in(checkpoint_of(model))
    model_vocabulary = vocabulary(load_tokenizer(model), d_vocab)
    member_sets = token_sets(
        model_vocabulary, chosen.kinds, chosen.smallest, read_set_files(files or [])
    )
    for member_set in member_sets:
        if member_set.left_out:
            options.say(
                f"token sets: {member_set.name} is left out: {member_set.left_out}", err=True
            )
    save_sets(output, model_vocabulary, member_sets)


@app.command()
def apply(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    sets: SetFolder,
    hook: options.HookName,
    settings: options.Settings,
    projection: Through,
    seed: options.Seed,
    output: options.Output,
    examples: ExampleFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Write what every latent does to the logits, its class, and the token sets that stand out."""
    options.use_device(threads)
    from saeflow.analyses.logit_lens.io import load_sets, save_lens
    from saeflow.analyses.logit_lens.lens_tables import apply_lens

    through, tested = options.parsed(Projection, projection), options.parsed(Enrichment, settings)
    given = _input(model, sae, load_sets(sets), hook, through, examples, dtype)
    beat = options.progress("logit lens, latents")
    save_lens(output, apply_lens(given, through, tested, seed, threads, beat))


def _input(
    model: Path,
    sae: Path,
    saved: SavedSets,
    hook: str,
    projection: Projection,
    examples: Path | None,
    dtype: str,
) -> LensInput:
    from saeflow.analyses.examples.io import read_firing
    from saeflow.analyses.logit_lens.lens_tables import LensInput, written_hook
    from saeflow.models.hooks import parse_hook
    from saeflow.models.unembedding import unembedding

    lm, weights = options.open_model(model, dtype), options.open_sae(sae)
    layer = parse_hook(written_hook(lm, weights, hook)).layer
    density, typical = read_firing(examples) if examples else (None, None)
    rows = unembedding(lm, saved.vocabulary.ids.tolist(), projection.unembedding)
    return LensInput(
        decoder=weights.W_dec,
        unembedding=rows,
        vocabulary=saved.vocabulary,
        sets=saved.sets,
        density=density,
        typical=typical,
        layer=layer,
    )


@app.command()
def check(
    model: options.ModelFolder,
    sae: options.SAEFolder,
    corpus: options.Corpus,
    sets: SetFolder,
    lens: Annotated[Path, typer.Option(help="Folder of the lens's tables.")],
    examples: Annotated[Path, typer.Option(help="Folder of the latents' examples.")],
    hook: options.HookName,
    settings: options.Settings,
    projection: Through,
    seed: options.Seed,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure what adding and taking away some latents does to the next token, beside what the lens
    says."""
    options.use_device(threads)
    from saeflow.analyses.examples.io import read_contexts, read_firing
    from saeflow.analyses.logit_lens.checking import CheckInput, check_latents
    from saeflow.analyses.logit_lens.io import load_sets, save_check
    from saeflow.analyses.logit_lens.lens_tables import written_hook
    from saeflow.corpora.io import load_blocks
    from saeflow.saes.subject import Subject
    from saeflow.tables import read_table

    lm, weights = options.open_model(model, dtype), options.open_sae(sae)
    given = CheckInput(
        enrichment=read_table(lens / "enrichment.parquet"),
        shapes=read_table(lens / "latents.parquet"),
        contexts=read_contexts(examples),
        typical=read_firing(examples).typical,
        blocks=load_blocks(corpus).tokens,
    )
    checked = check_latents(
        Subject(lm, weights, written_hook(lm, weights, hook), seed),
        load_sets(sets).vocabulary,
        given,
        options.parsed(Projection, projection),
        options.parsed(Causal, settings),
        options.progress("logit lens, latents checked"),
    )
    save_check(output, checked)
