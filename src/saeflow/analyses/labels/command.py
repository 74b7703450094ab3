"""``saeflow labels``: words for latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from saeflow import options
from saeflow.analyses.labels.settings import LabelledLatents, SelfExplanation, TokenWording

app = typer.Typer(help="Label latents in words.", no_args_is_help=True)

Latents = Annotated[Path, typer.Option(help="latents.parquet: which latents get labels.")]
Activity = Annotated[Path, typer.Option(help="latents.parquet of where latents fire.")]
LabelFiles = Annotated[list[Path], typer.Argument(help="Tables of labels, one per source.")]


@app.callback()
def stage() -> None:
    """Label latents in words."""


@app.command()
def choose(
    examples: Activity,
    sae_name: Annotated[str, typer.Option(help="The SAE's name.")],
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    targets: Annotated[
        list[Path], typer.Option(help="targets.parquet: what goals are aimed at.")
    ] = [],  # noqa: B006 - typer's
) -> None:
    """Choose the latents that get labels."""
    options.set_pools(1)
    from saeflow.analyses.examples.examples import LATENTS
    from saeflow.analyses.labels.choosing import CHOSEN, choose_latents
    from saeflow.analyses.steering.choice import TARGETS_SCHEMA
    from saeflow.tables import read_table, write_table

    asked = options.parsed(LabelledLatents, settings)
    aimed = [read_table(file, TARGETS_SCHEMA)["latent"].to_list() for file in targets]
    chosen = choose_latents(
        read_table(examples, LATENTS),
        asked,
        [each for own in aimed for each in own],
        sae_name,
        seed,
    )
    write_table(output, chosen, CHOSEN)


@app.command("from-tokens")
def from_tokens(
    latents: Latents,
    lens: Annotated[Path, typer.Option(help="tokens.parquet of the logit lens.")],
    examples: Activity,
    settings: options.Settings,
    output: options.Output,
) -> None:
    """Label latents by the tokens that they promote and fire on."""
    options.set_pools(1)
    from saeflow.analyses.examples.examples import LATENTS
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.wording import LABELS, token_labels
    from saeflow.analyses.logit_lens.lens_tables import TOKENS
    from saeflow.tables import read_table, write_table

    labels = token_labels(
        read_table(latents, CHOSEN),
        read_table(lens, TOKENS),
        read_table(examples, LATENTS),
        options.parsed(TokenWording, settings),
    )
    write_table(output, labels, LABELS)


@app.command("import")
def import_(
    latents: Latents,
    file: Annotated[Path, typer.Option(help="Labels of another program.")],
    output: options.Output,
) -> None:
    """Take labels from an export of Neuronpedia, a folder of delphi, or a table as text."""
    options.set_pools(1)
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.exchange import imported_labels
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.tables import read_table, write_table

    write_table(output, imported_labels(file, read_table(latents, CHOSEN)), LABELS)


@app.command("from-self")
def from_self(
    latents: Latents,
    sae: options.SAEFolder,
    model: options.ModelFolder,
    corpus: options.Corpus,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    texts: Annotated[Path, typer.Option(help="What was said at the best scales.")],
    read_outs: Annotated[Path, typer.Option(help="Read-outs of every scale and template.")],
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have the model say what it makes of latents' directions."""
    options.use_device(threads)
    import torch

    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.self_explanation import READ_OUTS, TEXTS, self_explanations
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import read_table, write_table

    asked = options.parsed(SelfExplanation, settings)
    result = self_explanations(
        options.open_model(model, dtype),
        options.open_sae(sae).W_dec,
        read_table(latents, CHOSEN)["latent"].to_list(),
        torch.from_numpy(load_blocks(corpus, slice(0, asked.blocks)).tokens).long(),
        asked,
        seed,
        options.progress("self-explanation, scales"),
    )
    write_table(output, result.labels, LABELS)
    write_table(texts, result.texts, TEXTS)
    write_table(read_outs, result.read_outs, READ_OUTS)


@app.command()
def join(
    labels: LabelFiles,
    sae_name: Annotated[str, typer.Option(help="The SAE's name.")],
    output: options.Output,
    csv: Annotated[Path, typer.Option(help="The same as CSV.")],
) -> None:
    """Put the labels of all sources beside each other."""
    options.set_pools(1)
    from saeflow.analyses.labels.exchange import write_sheet
    from saeflow.analyses.labels.summary import TABLE, label_table
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.tables import read_table, write_table

    table = label_table(sae_name, [read_table(file, LABELS) for file in labels])
    write_table(output, table, TABLE)
    write_sheet(csv, table)


@app.command()
def export(
    labels: Annotated[Path, typer.Argument(help="labels.parquet of an SAE.")],
    layout: Annotated[
        Literal["neuronpedia", "delphi"], typer.Option("--format", help="Whose layout.")
    ],
    place: Annotated[
        str,
        typer.Option(
            help="What the other program calls the place: Neuronpedia's model/source, such as "
            "gpt2-small/8-res-jb; delphi's module, such as layers.8."
        ),
    ],
    output: options.Output,
) -> None:
    """Write labels in the layout of another program."""
    options.set_pools(1)
    from saeflow.analyses.labels.exchange import write_delphi, write_neuronpedia
    from saeflow.errors import SaeflowError
    from saeflow.tables import read_table

    table = read_table(labels)
    if layout == "delphi":
        if not place or "/" in place:
            raise SaeflowError(f"--place: '{place}' is no module of delphi; write layers.8")
        write_delphi(output, table, place)
        return
    model, _, source = place.partition("/")
    if not model or not source:
        raise SaeflowError(
            f"--place: '{place}' names no model and source; write gpt2-small/8-res-jb"
        )
    write_neuronpedia(output, table, model, source)
