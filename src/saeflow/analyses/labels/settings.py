"""What is asked of words for latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.section import (
    InputPath,
    LocalPath,
    Name,
    Names,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.judging import Judge
from saeflow.config.sections.prompts import Prompt

Source = Literal["tokens", "import", "self", "adapted", "explainer"]
ScoreKind = Literal["detection", "fuzzing", "simulation", "intruder", "generation", "dreams"]


class LabelledLatents(Section):
    """Which latents of each SAE get labels; those named here beside those that are drawn. Of a
    crosscoder those that `diffing` shows."""

    listed: Annotated[list[Annotated[int, Field(ge=0)]], Unique] = Field(default=[])
    """Latents by their numbers, of every SAE."""
    targets: bool = False
    """Whether those that goals of `steering` are aimed at are among them."""
    drawn: int = Field(default=100, ge=0)
    """How many are drawn beside, of those that fire often enough."""
    least: int = Field(default=100, ge=1)
    """Tokens of the cache that a latent fires on, at least, to be drawn."""


class TokenWording(Section):
    """How tokens become a label."""

    promoted: int = Field(default=5, ge=1, le=20)
    """``tokens``: how many of the most promoted tokens it names."""
    frequent: float = Field(default=0.2, ge=0, le=1)
    """``tokens``: the most frequent token that a latent fires on is named where it is at least
    this share of its firings."""


class SelfExplanation(Section):
    """``self``: how a model is asked about its own directions: each is put in place of a word of a
    prompt, and what the model says next is read (SelfIE, Patchscopes)."""

    templates: list[Prompt] = Field(
        default=[
            'The word "{latent}" is another word for "',
            'The meaning of the word "{latent}" is "',
            '"{latent}", also known as "{latent}", is a kind of',
        ],
        min_length=1,
    )
    """Prompts, text or messages, with ``{latent}`` wherever the direction is put in."""
    edit: Literal["replace", "add"] = "replace"
    """``replace``: the direction takes the place of what is there. ``add``: it is added, and a
    scale of 1 has the norm of what it is added to."""
    layer: int = Field(default=2, ge=0)
    """At whose input it is put in."""
    probe: int | None = Field(default=None, ge=0)
    """The layer after which the stream is compared with the direction; null is the last but one."""
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1), Unique] = Field(
        default=[0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0]
    )
    """In units of the median norm of the residual stream at the layer's input."""
    random: int = Field(default=99, ge=2, le=1000)
    """Random directions that are looked at alike: read-outs are in units of theirs."""
    chance: float = Field(default=0.1, gt=0, lt=1)
    """Of an SAE's self-explanations no larger share is expected to be by chance (false discovery
    rate, Benjamini and Hochberg). A latent's p is the share of random directions that do as well,
    itself counted; none is below 1 / (``random`` + 1), so that of L latents some have a
    self-explanation only where L / ((``random`` + 1) ``chance``) or more do better than all random
    directions."""
    best: int = Field(default=3, ge=1)
    """Scales whose texts are written; the label is the text that agrees most with the others."""
    new_tokens: int = Field(default=12, ge=1)
    """Tokens of a text."""
    blocks: int = Field(default=8, ge=1)
    """Blocks of the split ``eval`` from which the norm is taken."""

    @model_validator(mode="after")
    def _can_be_told(self) -> SelfExplanation:
        complaints = []
        if 1 / (self.random + 1) > self.chance:
            reason = f"{self.random} cannot show a chance of {self.chance:g}; raise it"
            complaints.append(("random", reason))
        for number, template in enumerate(self.templates):
            texts = [template] if isinstance(template, str) else [m.content for m in template]
            if not any("{latent}" in text for text in texts):
                reason = "has no {latent}; write it where the direction goes"
                complaints.append((f"templates.{number}", reason))
        refuse(complaints)
        return self


class ScaleBiasAdapter(Section):
    """``adapted``: the same through one scale and one bias, fitted on directions whose words are
    known (arXiv 2602.10352)."""

    words: int = Field(default=400, ge=0)
    """Words of the vocabulary that are drawn, with their directions in the embedding."""
    latents: int = Field(default=400, ge=0)
    """Latents that get no label of their own and are drawn, with the token that each promotes most
    by `logit_lens`; without it there are none."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Of all words this share is held out, to tell how well others are said."""
    steps: int = Field(default=150, ge=1)
    """Of Adam."""
    batch: int = Field(default=32, ge=1)
    """Pairs of a step."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Its largest, of the scale and, in all its numbers together, of the bias; it falls to 0 as a
    cosine."""
    bootstrap: int = Field(default=1000, ge=100)
    """Draws for intervals of held-out means."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals."""

    @model_validator(mode="after")
    def _has_words(self) -> ScaleBiasAdapter:
        if not (self.words or self.latents):
            refuse([("words", "and latents are both 0, and nothing can be fitted; raise one")])
        return self


class Passages(Section):
    """Passages of text that models are shown, and those that labels are scored on; they come from
    different blocks."""

    window: int = Field(default=32, ge=4)
    """Tokens of a passage."""
    quantiles: int = Field(default=10, ge=1)
    """Equal parts of the passages in which a latent fires, by how strongly; as many are drawn of
    each."""
    shown: int = Field(default=40, ge=0)
    """Passages that the source ``explainer`` is shown."""
    tested: int = Field(default=50, ge=2)
    """Passages in which the latent fires, that its labels are scored on."""
    silent: int = Field(default=50, ge=2)
    """Passages in which it does not."""


class AskedModel(Section):
    """Who explains and who scores: a model behind the endpoint of `calls`, or the study's own."""

    kind: Literal["local", "openai"] = "local"
    """``local``: the study's own model, by the log-odds of Yes over No. ``openai``: a model behind
    an endpoint, with the ledger, the budget and the batches of judges."""
    model: Text | None = None
    """``openai``: its name."""
    parameters: dict[str, int | float | str | None] | None = None
    """``openai``: what else a request says; null is ``{temperature: 0, max_tokens: 300}``, and
    ``{max_completion_tokens: 4000}`` for models that reason."""
    prompts: LocalPath = "workflow/labels/asking.yaml"
    """The file of what is asked, in the working directory or the checkout."""
    together: int = Field(default=5, ge=1, le=50)
    """``openai``: passages per question where each gets a mark."""

    @property
    def judge(self) -> Judge:
        """The model as endpoints know it."""
        usual = Judge(kind="openai", model=self.model)
        parameters = self.parameters
        if parameters is None:
            parameters = usual.sampling
            if "max_tokens" in parameters:
                parameters = {**parameters, "max_tokens": 300}
        return usual.model_copy(update={"parameters": parameters})

    @model_validator(mode="after")
    def _is_named(self) -> AskedModel:
        if self.kind == "openai" and not self.model:
            refuse([("model", "is needed by 'openai'; name the model that is asked")])
        return self


class LabelScores(Section):
    """How labels are scored, each beside the label of a random latent on the same passages."""

    kinds: Annotated[list[ScoreKind], Unique] = Field(default=[])
    """``detection``: telling passages in which the latent fires from others. ``fuzzing``: telling
    them with the firing tokens marked from others with other tokens marked. ``simulation``: saying
    of every token of a passage how strongly the latent fires. ``generation``: whether text written
    from the label fires the latent. ``intruder``: telling a passage in which it does not fire from
    four in which it does, without a label. ``dreams``: telling prompts that `dreaming` found for
    the latent from those for others. None by default: labels without a score are doubtful."""
    simulated: int = Field(default=20, ge=2)
    """``simulation``: passages of each latent, half of them such in which it fires, from the
    strongest to the weakest, and half in which it is silent."""
    texts: int = Field(default=6, ge=2)
    """``generation``: texts written from each label."""
    intruders: int = Field(default=10, ge=1)
    """``intruder``: questions about each latent."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of intervals. Those of differences from a random latent's label hold together, for all kinds
    that are asked about a label (Bonferroni)."""
    bootstrap: int = Field(default=2000, ge=100)
    """Draws of latents, for intervals of means over them."""

    @property
    def joint_level(self) -> float:
        """Of each interval, where one label is believed if any kind raises it above its baseline;
        ``intruder`` asks of no label, and ``dreams`` has no interval."""
        asked = len(set(self.kinds) - {"intruder", "dreams"})
        return 1 - (1 - self.level) / max(asked, 1)


class Labels(Section):
    """Words for latents, from several sources beside each other, and scores that say whether to
    believe them."""

    saes: Names | None = None
    """SAEs whose latents get labels, and crosscoders that `diffing` looks at; by default all that
    the logit lens or `diffing` can look at. Labels of crosscoders are of the sources ``tokens``,
    ``import`` and ``explainer``, and have the scores that passages tell."""
    sources: Annotated[list[Source], Field(min_length=1), Unique] = Field(default=["tokens"])
    """``tokens``: what the latent promotes most by the logit lens, and the token that it fires on
    most. ``import``: labels of files. ``self``: what the model says of the latent's direction in
    place of a word. ``adapted``: the same through a fitted scale and bias. ``explainer``: what a
    model says that is shown passages in which it fires."""
    latents: LabelledLatents = LabelledLatents()
    wording: TokenWording = TokenWording()
    self_explanation: SelfExplanation = SelfExplanation()
    adapter: ScaleBiasAdapter = ScaleBiasAdapter()
    passages: Passages = Passages()
    asked: AskedModel = AskedModel()
    scores: LabelScores = LabelScores()
    imported: dict[Name, InputPath] = Field(default={})
    """``import``: by SAE, a file of labels: an export of Neuronpedia (``.jsonl``, ``.jsonl.gz`` or
    ``.json``), a ``.csv`` with columns ``latent`` and ``text``, or the folder of explanations that
    delphi writes."""

    @model_validator(mode="after")
    def _has_latents(self) -> Labels:
        complaints = []
        chosen = self.latents
        if not (chosen.listed or chosen.targets or chosen.drawn):
            complaints.append(("latents", "names no latent; list some, or draw some"))
        if "import" in self.sources and not self.imported:
            complaints.append(("imported", "names no file for the source 'import'; add it"))
        if "explainer" in self.sources and not self.passages.shown:
            complaints.append(("passages.shown", "0 shows an explainer nothing; raise it"))
        refuse(complaints)
        return self
