"""The configuration of a study: every key, its default, its meaning, and what must agree with what.

The JSON schema for Snakemake and the config reference of the docs are generated from these models. Nothing here
imports torch: a wrong config is refused before anything heavy is loaded.

A section holds only what changes the stage's result. Machines (threads, devices, batch sizes) are told to the
workflow by profiles and to commands by options.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Positive = Annotated[int, Field(ge=1)]
HOOK_PATTERN = r"^blocks\.\d+\.(hook_resid_pre|hook_resid_mid|hook_resid_post|hook_mlp_out|hook_attn_out|attn\.hook_z)$"
RESIDUAL_POST = r"^blocks\.\d+\.hook_resid_post$"


class Section(BaseModel):
    """A closed section: an unknown key is an error, a value is never coerced from another type's text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Tokens(Section):
    """How many tokens each split of the corpus holds, BOS included. The splits never share text."""

    model: int = Field(0, ge=0)
    """Tokens to train the model on; only for a model trained here."""
    sae: int = Field(600_000, ge=1024)
    """Tokens whose activations are cached to train SAEs."""
    eval: int = Field(65_536, ge=1024)
    """Tokens for every evaluation: loss, scale search, SAE metrics."""


class Corpus(Section):
    """Where text comes from."""

    kind: Literal["tales", "text"] = "tales"
    """``tales``: the embedded story grammar, infinite and with known truth. ``text``: a local file."""
    path: str | None = None
    """``text``: a .txt, .jsonl or .parquet file. ``${NAME}`` is read from the environment."""
    field: Name = "text"
    """``text``: the field or column that holds the text in .jsonl and .parquet."""
    separator: str = "\n\n"
    """``text``: what stands between documents in a .txt file."""
    context: int = Field(64, ge=8, le=131_072)
    """Tokens per block, BOS included."""
    tokens: Tokens = Tokens()

    @model_validator(mode="after")
    def _path_fits_kind(self) -> Corpus:
        if self.kind == "text" and not self.path:
            raise ValueError("corpus.path: is needed for kind 'text'; name a .txt, .jsonl or .parquet file")
        if self.kind == "tales" and self.path:
            raise ValueError("corpus.path: kind 'tales' is written by a grammar and reads no file; remove path or set kind: text")
        return self


class ModelTraining(Section):
    """A small Llama-architecture model trained on the split ``model`` of the corpus."""

    d_model: int = Field(96, ge=8, le=8192)
    n_layers: int = Field(4, ge=1, le=128)
    n_heads: int = Field(4, ge=1, le=128)
    d_mlp: int = Field(256, ge=8, le=65_536)
    batch_size: int = Field(32, ge=1)
    """Blocks per step."""
    epochs: int = Field(1, ge=1)
    """Passes over the split."""
    learning_rate: float = Field(3e-3, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule (AdamW)."""
    warmup_steps: int = Field(50, ge=0)
    weight_decay: float = Field(0.01, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelTraining:
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise ValueError(
                f"model.train.n_heads: {self.n_heads} heads do not give d_model {self.d_model} an even head width"
            )
        return self


class Model(Section):
    """The language model: trained here, or a local checkpoint directory, or a hub repository."""

    name: Name
    """Its name in file paths."""
    train: ModelTraining | None = None
    path: str | None = None
    """A Hugging Face checkpoint directory. ``${NAME}`` is read from the environment."""
    repo: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """A hub repository."""
    revision: str = "main"
    """Branch, tag or commit of the repository; the commit it resolves to is recorded."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights while running."""

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [key for key in ("train", "path", "repo") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"model: give exactly one of train, path and repo; this gives {' and '.join(given) or 'none'}")
        return self


class Activations(Section):
    """The cache of activations at ``hook`` over the split ``sae``."""

    format: Literal["parquet", "hdf5"] = "parquet"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    blocks_per_shard: int = Field(2048, ge=1)
    """Blocks of text per shard; part of the cache's identity."""
    exclude_bos: bool = True
    """Leave out the BOS position, whose norm dwarfs the others' in most models."""


class SAETraining(Section):
    """One SAE, trained on the cached activations."""

    architecture: Literal["standard", "topk", "batchtopk", "jumprelu"] = "topk"
    d_sae: int = Field(512, ge=2)
    """Number of latents."""
    k: int = Field(8, ge=1)
    """``topk``, ``batchtopk``: active latents per token."""
    sparsity_coefficient: float = Field(1e-3, ge=0)
    """``standard``: of the decoder-norm-weighted L1 term. ``jumprelu``: of the L0 term."""
    bandwidth: float = Field(0.05, gt=0)
    """``jumprelu``: width of the rectangle kernel of the straight-through estimators, in normalised units."""
    batch_size: int = Field(2048, ge=1)
    """Activations per step."""
    tokens: int = Field(1_500_000, ge=1)
    """Activations to train on; passes over the cache repeat, each in another order."""
    learning_rate: float = Field(2e-3, gt=0, lt=1)
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    decay_fraction: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    dead_after: int = Field(200_000, ge=1)
    """A latent is dead when it has not fired for this many tokens."""
    auxiliary_coefficient: float = Field(1 / 32, ge=0)
    """``topk``, ``batchtopk``: of the auxiliary loss that revives dead latents."""

    @model_validator(mode="after")
    def _k_fits(self) -> SAETraining:
        if self.architecture in ("topk", "batchtopk") and self.k >= self.d_sae:
            raise ValueError(f"saes: k {self.k} must be smaller than d_sae {self.d_sae}")
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("saes: warmup_fraction and decay_fraction add up to more than 1")
        return self


class SAE(Section):
    """An SAE of the study: trained here, or a local SAELens 6 directory."""

    train: SAETraining | None = None
    path: str | None = None
    """A directory with cfg.json and sae_weights.safetensors. ``${NAME}`` is read from the environment."""

    @model_validator(mode="after")
    def _one_source(self) -> SAE:
        if (self.train is None) == (self.path is None):
            raise ValueError("saes: give each SAE exactly one of train and path")
        return self


class Sampling(Section):
    """How the next token is drawn."""

    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    top_k: int | None = Field(None, ge=1)
    """Keep the k most probable tokens; null keeps all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Then keep the smallest set whose probability reaches this; null keeps all.

    The published SAE-TS runs name top_k 50 and top_p 0.3, but the sampler they used ignores top_p once top_k is
    set: write ``{top_k: 50}`` for what they did, both for what they say."""


class Scale(Section):
    """How much of a steering vector is added while its effects are measured."""

    rule: Literal["loss_increase", "loss", "fixed"] = "loss_increase"
    """``loss_increase``: the unsteered loss plus ``value`` nats per token (the paper's rule). ``loss``: an absolute
    loss (the published code's). ``fixed``: the scale itself."""
    value: float = Field(0.5, gt=0)
    maximum: float = Field(4.0, gt=0)
    """Largest scale tried, as a multiple of the mean activation norm at the hook."""
    search: Literal["bisect", "scan"] = "bisect"
    """``scan``: the published linear scan with interpolation, for parity."""
    steps: int = Field(10, ge=2)
    """``bisect``: halvings of the bracket. ``scan``: intervals up to ``maximum``."""
    tokens: int = Field(2048, ge=64)
    """Tokens of the split ``eval`` whose loss is measured, per scale tried."""


class Effects(Section):
    """What steering vectors do to the mean activation of every latent."""

    vectors: Literal["decoder", "random", "mixtures"] = "decoder"
    """``decoder``: rows of the SAE's decoder. ``random``: directions drawn uniformly. ``mixtures``: of two rows."""
    count: int | None = Field(None, ge=1)
    """How many vectors; null is one per latent."""
    block_size: int = Field(128, ge=1)
    """Vectors per shard; part of the result's identity."""
    prompts: list[str] = Field(default=["", "I think", "Last night"], min_length=1)
    samples: int = Field(8, ge=1)
    """Rollouts per vector and prompt."""
    baseline_samples: int = Field(128, ge=2)
    """Unsteered rollouts per prompt."""
    new_tokens: int = Field(24, ge=1)
    """Tokens generated per rollout."""
    sampling: Sampling = Sampling()
    scale: Scale = Scale()
    positions: Literal["generated", "all"] = "generated"
    """Whose activations are averaged: generated tokens, or prompt tokens too. BOS never."""


class Approximator(Section):
    """The linear map from a unit steering vector to its effects, ``effects ≈ vector @ M + b``."""

    method: Literal["ridge", "adam"] = "ridge"
    """``ridge``: closed form, penalty chosen on the validation rows. ``adam``: the published recipe."""
    penalties: list[float] = Field(default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], min_length=1)
    """``ridge``: penalties tried, as multiples of the mean eigenvalue of the vectors' covariance."""
    epochs: int = Field(15, ge=1)
    """``adam``: passes over the training rows."""
    validation: float = Field(0.1, gt=0, lt=0.5)
    """Share of the rows that choose the penalty; as many again are held out for the metrics."""


class Goals(Section):
    """Behaviours to steer towards, each described by one YAML file."""

    directory: str = "workflow/goals/tales"
    """Where the files ``<name>.yaml`` lie; relative to the repository, or absolute."""
    names: list[Name] = Field(min_length=1)

    @field_validator("names")
    @classmethod
    def _unique(cls, names: list[str]) -> list[str]:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"goals.names: {', '.join(twice)} is named twice")
        return names


class Steering(Section):
    """Steered completions over a grid of scales."""

    sae: Name | None = None
    """The SAE whose latents are targeted; null is the first of ``saes``."""
    methods: list[Literal["caa", "sae", "sae_ts", "pinverse", "rotation", "random"]] = Field(
        default=["caa", "sae", "sae_ts", "pinverse", "rotation", "random"], min_length=1
    )
    latents: int = Field(1, ge=1)
    """Latents targeted per goal when the goal's file names none: those that tell its examples apart best."""
    bias_weight: float = Field(1.0, ge=0)
    """``sae_ts``, ``rotation``: weight of the bias term that is subtracted (λ)."""
    caa_positions: Literal["mean", "last"] = "mean"
    """``caa``: average over the tokens of an example, or its last token. BOS never."""
    scales: list[float] = Field(default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0], min_length=2)
    scale_unit: Literal["norm", "absolute"] = "norm"
    """``norm``: scales are multiples of the mean activation norm at the hook."""
    prompts: list[str] = Field(default=["I think"], min_length=1)
    samples: int = Field(64, ge=4)
    """Completions per goal, method, scale and prompt."""
    new_tokens: int = Field(24, ge=1)
    sampling: Sampling = Sampling()

    @field_validator("scales")
    @classmethod
    def _increasing(cls, scales: list[float]) -> list[float]:
        if scales != sorted(set(scales)) or scales[0] != 0.0:
            raise ValueError("steering.scales: must start with 0.0 (the unsteered control) and increase")
        return scales

    @field_validator("methods")
    @classmethod
    def _unique(cls, methods: list[str]) -> list[str]:
        if len(set(methods)) != len(methods):
            raise ValueError("steering.methods: a method is named twice")
        return methods


class Judge(Section):
    """Who scores completions, between 0 and 1, for behaviour and for coherence."""

    kind: Literal["planted", "lexical"] = "planted"
    """``planted``: exact, by the grammar; only for the corpus ``tales``. ``lexical``: word lists of the goal for the
    behaviour, the unsteered model's own loss for the coherence; for any language model."""
    saturation: float = Field(0.2, gt=0, le=1)
    """``lexical``: share of a completion's words, from the goal's list, that scores 1."""


class Summary(Section):
    """Tables of goals, methods and scales."""

    bootstrap: int = Field(1000, ge=100)
    """Resamples of the completions behind every interval."""
    level: float = Field(0.95, gt=0.5, lt=1)
    """Of the intervals."""
    selection: float = Field(0.5, gt=0, lt=1)
    """Share of the completions that choose the scale; the others report."""


class Figures(Section):
    """How figures look; nothing else depends on it."""

    dpi: int = Field(120, ge=50, le=600)
    detail_goals: list[Name] = []
    """Goals drawn in detail; empty is the first two."""
    width: float = Field(9.0, ge=3, le=30)
    """Inches."""


class Study(Section):
    """The whole config."""

    study: Name
    """Name of the study and of its folder under ``results/``."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of every random draw."""
    corpus: Corpus = Corpus()
    model: Model
    hook: str = Field(pattern=HOOK_PATTERN)
    """Where the SAEs read and the vectors are added, a TransformerLens name: ``blocks.2.hook_resid_post``."""
    activations: Activations = Activations()
    saes: dict[Name, SAE] = Field(min_length=1)
    effects: Effects = Effects()
    approximator: Approximator = Approximator()
    goals: Goals
    steering: Steering = Steering()
    judge: Judge = Judge()
    summary: Summary = Summary()
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _sections_agree(self) -> Study:
        for complaint in _disagreements(self):
            raise ValueError(complaint)
        return self

    @property
    def steering_sae(self) -> str:
        """The SAE whose latents are targeted."""
        return self.steering.sae or next(iter(self.saes))

    @property
    def layer(self) -> int:
        """The layer of the hook."""
        return int(self.hook.split(".")[1])


def _disagreements(study: Study) -> list[str]:
    """What one section says and another denies, each as one line that opens with the key to change."""
    found = []
    train = study.model.train
    if train and study.layer >= train.n_layers:
        found.append(f"hook: layer {study.layer} does not exist; model.train.n_layers is {train.n_layers} (layers 0..{train.n_layers - 1})")
    if not re.match(RESIDUAL_POST, study.hook):
        found.append(f"hook: '{study.hook}' cannot be steered; effects and steering need a hook_resid_post")
    if train and study.corpus.kind != "tales":
        found.append("model.train: a model is trained here only on the corpus 'tales'; give path or repo for other text")
    if train and study.corpus.tokens.model < study.corpus.context:
        found.append("corpus.tokens.model: is needed (at least one block) when the model is trained here")
    if not train and study.corpus.kind == "tales":
        found.append("corpus.kind: 'tales' has a vocabulary of its own, which only a model trained here (model.train) knows; set kind: text")
    if study.steering.sae and study.steering.sae not in study.saes:
        found.append(f"steering.sae: there is no SAE '{study.steering.sae}'; saes names {', '.join(study.saes)}")
    if study.judge.kind == "planted" and study.corpus.kind != "tales":
        found.append("judge.kind: 'planted' knows only the corpus 'tales'; set kind: lexical")
    if unknown := [goal for goal in study.figures.detail_goals if goal not in study.goals.names]:
        found.append(f"figures.detail_goals: {', '.join(unknown)} is not in goals.names")
    if study.corpus.tokens.eval < study.effects.scale.tokens:
        found.append(f"effects.scale.tokens: {study.effects.scale.tokens} is more than corpus.tokens.eval {study.corpus.tokens.eval}")
    if study.steering.samples * len(study.steering.prompts) * study.summary.selection < 1:
        found.append("summary.selection: leaves no completion to choose the scale; raise it or steering.samples")
    return found


class Goal(Section):
    """One goal's file."""

    title: str
    """Its name in figures and tables."""
    criterion: str
    """What a judge is asked: a sentence that is true of a text that shows the behaviour."""
    topic: str | None = None
    """``planted``: the topic of the corpus ``tales``; default is the file's name."""
    positive: list[str] = Field(min_length=2)
    """Texts that show the behaviour: contrast examples for ``caa`` and for choosing latents."""
    negative: list[str] = Field(min_length=2)
    """Texts that do not."""
    words: list[str] = []
    """``lexical``: words and phrases; a trailing ``*`` matches any ending."""
    latents: dict[Name, dict[int, float]] = {}
    """By SAE: the latents to target and their weights; chosen from the examples where absent."""
