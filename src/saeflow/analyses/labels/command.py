"""``saeflow labels``: words for latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saeflow import options
from saeflow.analyses.labels import crosscoder_command
from saeflow.analyses.labels.settings import (
    AskedModel,
    LabelledLatents,
    LabelScores,
    Passages,
    ScaleBiasAdapter,
    SelfExplanation,
    TokenWording,
)

if TYPE_CHECKING:
    import polars as pl

    from saeflow.analyses.labels.asking import Asker
    from saeflow.analyses.labels.questions import Words
    from saeflow.models.language_model import LanguageModel

app = typer.Typer(help="Label latents in words.", no_args_is_help=True)
app.command("from-decoders")(crosscoder_command.from_decoders)
app.command("gather-of-models")(crosscoder_command.gather_of_models)

Latents = Annotated[Path, typer.Option(help="latents.parquet: which latents get labels.")]
Activity = Annotated[Path, typer.Option(help="latents.parquet of where latents fire.")]
LabelFiles = Annotated[list[Path], typer.Argument(help="Tables of labels, one per source.")]
SAEName = Annotated[str, typer.Option(help="The SAE's name.")]
PassageFile = Annotated[Path, typer.Option(help="passages.parquet")]
Prompts = Annotated[Path, typer.Option(help="File of what is asked.")]


@app.callback()
def stage() -> None:
    """Label latents in words."""


@app.command()
def choose(
    examples: Activity,
    sae_name: SAEName,
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


@app.command("from-adapter")
def from_adapter(
    latents: Latents,
    sae: options.SAEFolder,
    model: options.ModelFolder,
    corpus: options.Corpus,
    settings: options.Settings,
    adapter: Annotated[str, typer.Option(help="The section 'labels.adapter', as JSON.")],
    seed: options.Seed,
    output: options.Output,
    weights: Annotated[Path, typer.Option(help="Scale and bias, .safetensors.")],
    held_out: Annotated[Path, typer.Option(help="How well words are said that are held out.")],
    lens: Annotated[list[Path], typer.Option(help="tokens.parquet of the logit lens.")] = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Fit a scale and a bias to words of known directions, and have the model explain latents
    through them."""
    options.use_device(threads)
    import torch

    from saeflow.analyses.labels.adapter import ADAPTER, adapted_explanations, save_adapter
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.analyses.logit_lens.lens_tables import TOKENS
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import read_table, write_table

    asked = options.parsed(SelfExplanation, settings)
    promoted = [read_table(file, TOKENS).filter(side="top", rank=0) for file in lens]
    result = adapted_explanations(
        options.open_model(model, dtype),
        options.open_sae(sae).W_dec,
        read_table(latents, CHOSEN)["latent"].to_list(),
        torch.from_numpy(load_blocks(corpus, slice(0, asked.blocks)).tokens).long(),
        promoted[0] if promoted else None,
        asked,
        options.parsed(ScaleBiasAdapter, adapter),
        seed,
        options.progress("adapter, steps"),
    )
    write_table(output, result.explanations.labels, LABELS)
    write_table(held_out, result.held_out, ADAPTER)
    save_adapter(weights, result)


@app.command()
def gather(
    latents: Latents,
    examples: Annotated[Path, typer.Option(help="Folder of where latents fire.")],
    corpus: options.Corpus,
    sae_name: SAEName,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
) -> None:
    """Draw the passages that explain latents, and those that labels are scored on."""
    options.set_pools(1)
    from saeflow.analyses.examples.entries import read_entries
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.passages import PASSAGES, gather, read_cached
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import read_table, write_table

    asked = options.parsed(Passages, settings)
    chosen = read_table(latents, CHOSEN)["latent"].to_list()
    cached = read_cached(read_entries(examples), chosen, asked.window)
    table = gather(cached, chosen, load_blocks(corpus).tokens, asked, sae_name, seed)
    write_table(output, table, PASSAGES)


@app.command()
def explain(
    latents: Latents,
    passages: PassageFile,
    model: options.ModelFolder,
    prompts: Prompts,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    ledger: options.LedgerFile | None = None,
    calls: options.Calls = "{}",
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have a model say what the passages have in common in which latents fire."""
    options.use_device(threads)
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.explaining import explained
    from saeflow.analyses.labels.passages import PASSAGES
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.tables import read_table, write_table

    asked = options.parsed(AskedModel, settings)
    lm = options.open_model(model, dtype) if asked.kind == "local" else None
    asker = _asker(asked, prompts, lm, seed, ledger, calls, "explain latents, questions")
    chosen = read_table(latents, CHOSEN)["latent"].to_list()
    words = _words(model)
    write_table(output, explained(chosen, read_table(passages, PASSAGES), asker, words), LABELS)


@app.command()
def score(
    labels: LabelFiles,
    passages: PassageFile,
    sae: options.SAEFolder,
    model: options.ModelFolder,
    prompts: Prompts,
    asked: Annotated[str, typer.Option(help="The section 'labels.asked', as JSON.")],
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    answers: Annotated[Path, typer.Option(help="Every answer.")],
    dreams: Annotated[
        list[Path], typer.Option(help="targets.parquet and fronts.parquet of dreamed prompts.")
    ] = [],  # noqa: B006 - typer's
    hook: Annotated[
        str | None, typer.Option(help="Where the SAE reads; without it nothing is generated.")
    ] = None,
    ledger: options.LedgerFile | None = None,
    calls: options.Calls = "{}",
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Score labels beside those of random latents."""
    options.use_device(threads)
    import polars as pl

    from saeflow.analyses.labels import questions, scoring
    from saeflow.analyses.labels.firing import peaks
    from saeflow.analyses.labels.passages import PASSAGES
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.saes.subject import Subject
    from saeflow.tables import read_table, write_table

    wanted, who = options.parsed(LabelScores, settings), options.parsed(AskedModel, asked)
    every = pl.concat([read_table(file, LABELS) for file in labels])
    drawn, words = read_table(passages, PASSAGES), _words(model)
    lm = None
    generated = hook is not None and "generation" in wanted.kinds
    if who.kind == "local" or generated:
        lm = options.open_model(model, dtype)
    asker = _asker(who, prompts, lm, seed, ledger, calls, "score labels, questions")
    asked_of = []
    for kind in wanted.kinds:
        if kind in ("detection", "fuzzing"):
            asked_of += questions.passage_questions(every, drawn, kind, words, seed)
        elif kind == "simulation":
            asked_of += questions.simulation_questions(every, drawn, wanted.simulated, words, seed)
        elif kind == "dreams":
            asked_of += questions.dream_questions(every, _dreamed(dreams), seed)
        elif kind == "intruder":
            asked_of += questions.intruder_questions(drawn, wanted.intruders, words, seed)
    tables = [scoring.answer_table(asked_of, asker)]
    if generated and hook is not None and lm is not None:
        subject = Subject(lm, options.open_sae(sae), hook, seed)
        tables.append(
            scoring.generation_table(
                every, asker, lambda texts, own: peaks(subject, texts, own), wanted.texts, seed
            )
        )
    answered = pl.concat(tables)
    write_table(answers, answered, scoring.ANSWERS)
    write_table(output, scoring.score_table(answered, wanted, seed), scoring.SCORES)


def _dreamed(files: Sequence[Path]) -> pl.DataFrame:
    """The prompts of the fronts of single latents: latent, text."""
    import polars as pl

    from saeflow.analyses.dreaming.dreams import FRONTS, TARGETS
    from saeflow.tables import read_table

    if not files:
        return pl.DataFrame(schema={"latent": pl.Int32, "text": pl.String})
    targets, fronts = (
        read_table(file, schema) for file, schema in zip(files, (TARGETS, FRONTS), strict=True)
    )
    single = targets.filter(kind="latent").select("target", pl.col("latents").list.first())
    of = single.unique().rename({"latents": "latent"})
    return fronts.join(of, on="target", how="inner", maintain_order="left").select("latent", "text")


def _asker(
    asked: AskedModel,
    prompts: Path,
    lm: LanguageModel | None,
    seed: int,
    ledger: Path | None,
    calls: str,
    what: str,
) -> Asker:
    """Who is asked, with someone at the terminal or the log to tell."""
    from saeflow.analyses.labels.asking import HostedAsker, LocalAsker
    from saeflow.analyses.labels.prompts import read_prompts
    from saeflow.endpoint.inquiries import AskedBy
    from saeflow.endpoint.opening import open_service

    wordings = read_prompts(prompts)
    if lm is not None and asked.kind == "local":
        return LocalAsker(lm, wordings, seed).reporting(options.progress(what))
    asked_by = AskedBy("model", "labels.asked", "labels.passages.window")
    service = open_service(asked.judge, calls, ledger, what, asked_by)
    return HostedAsker(service, wordings, asked.together)


def _words(model: Path) -> Words:
    """How the model's tokens are written."""
    from saeflow.analyses.labels.questions import Words
    from saeflow.config.model_files import vocabulary_in
    from saeflow.models.language_model import checkpoint_of, load_tokenizer
    from saeflow.models.vocabulary import vocabulary

    said = vocabulary(load_tokenizer(model), vocabulary_in(checkpoint_of(model)))
    shown = zip(said.ids.tolist(), said.texts, said.special.tolist(), strict=True)
    texts = {token: text for token, text, special in shown if not special}
    return Words(texts, "" if said.marks_space else " ")


@app.command()
def join(
    labels: LabelFiles,
    sae_name: SAEName,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    csv: Annotated[Path, typer.Option(help="The same as CSV.")],
    summary: Annotated[Path, typer.Option(help="Means of scores over latents.")],
    scores: Annotated[list[Path], typer.Option(help="scores.parquet")] = [],  # noqa: B006 - typer's
) -> None:
    """Put the labels of all sources beside each other, with their scores."""
    options.set_pools(1)
    import polars as pl

    from saeflow.analyses.labels.exchange import write_sheet
    from saeflow.analyses.labels.scoring import SCORES
    from saeflow.analyses.labels.summary import SUMMARY, TABLE, label_table, summary_table
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.tables import read_table, write_table

    asked = options.parsed(LabelScores, settings)
    score_rows = pl.concat(
        [pl.DataFrame(schema=SCORES), *(read_table(file, SCORES) for file in scores)]
    )
    table = label_table(sae_name, [read_table(file, LABELS) for file in labels], score_rows)
    write_table(output, table, TABLE)
    write_sheet(csv, table)
    write_table(summary, summary_table(sae_name, score_rows, asked, seed), SUMMARY)


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
