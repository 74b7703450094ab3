"""The configuration of a study: every key, its default, its meaning, and what must agree with what.

The JSON schema for Snakemake and the config reference of the docs are generated from these models. Nothing here
imports torch: a wrong config is refused before anything heavy is loaded.

A section holds only what changes the stage's result. Machines (threads, devices, batch sizes) are told to the
workflow by profiles and to commands by options.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from saeflow.config.agreement import disagreements
from saeflow.config.section import HOOK, REPOSITORY, Name, Names, Section, Text, Unique, refuse


class Tokens(Section):
    """How many tokens each split of the corpus holds, BOS included. The splits never share text."""

    model: int = Field(default=0, ge=0)
    """Tokens to train the model on; only for a model trained here."""
    sae: int = Field(default=600_000, ge=1024)
    """Tokens whose activations are cached to train SAEs."""
    eval: int = Field(default=65_536, ge=1024)
    """Tokens for every evaluation: loss, scale search, SAE metrics."""


class Corpus(Section):
    """Where text comes from."""

    kind: Literal["tales", "text"] = "tales"
    """``tales``: the embedded story grammar, infinite and with known truth. ``text``: a local file."""
    path: Text | None = None
    """``text``: a .txt, .jsonl or .parquet file. ``${NAME}`` is read from the environment."""
    field: Text = "text"
    """``text``: the field or column that holds the text in .jsonl and .parquet."""
    separator: str = Field(default="\n\n", min_length=1)
    """``text``: what stands between documents in a .txt file."""
    context: int = Field(default=64, ge=8, le=131_072)
    """Tokens per block, BOS included."""
    tokens: Tokens = Tokens()
    """How much of it each split holds."""

    @model_validator(mode="after")
    def _agrees(self) -> Corpus:
        found = []
        if self.kind == "text" and not self.path:
            found.append(("path", "is needed for kind 'text'; name a .txt, .jsonl or .parquet file"))
        if self.kind == "tales" and self.path:
            found.append(("path", "kind 'tales' reads no file; remove path or set kind: text"))
        for split in ("sae", "eval"):
            if (tokens := getattr(self.tokens, split)) < self.context:
                found.append((f"tokens.{split}", f"{tokens} is less than one block of context {self.context}"))
        refuse(found)
        return self


class ModelTraining(Section):
    """A small Llama-architecture model trained on the split ``model`` of the corpus."""

    d_model: int = Field(default=96, ge=8, le=8192)
    """Width of the residual stream."""
    n_layers: int = Field(default=4, ge=1, le=128)
    """Number of layers."""
    n_heads: int = Field(default=4, ge=1, le=128)
    """Attention heads per layer; they share ``d_model`` evenly."""
    d_mlp: int = Field(default=256, ge=8, le=65_536)
    """Hidden width of the gated MLP."""
    batch_size: int = Field(default=32, ge=1)
    """Blocks per step."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the split."""
    learning_rate: float = Field(default=3e-3, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule (AdamW)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelTraining:
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            reason = f"{self.n_heads} heads do not give d_model {self.d_model} an even head width"
            refuse([("n_heads", reason)])
        return self


class Model(Section):
    """The language model: trained here, or a local checkpoint directory, or a hub repository."""

    name: Name
    """Its name in file paths."""
    train: ModelTraining | None = None
    """Train it here; only on the corpus ``tales``."""
    path: Text | None = None
    """A Hugging Face checkpoint directory. ``${NAME}`` is read from the environment."""
    repo: str | None = Field(default=None, pattern=REPOSITORY)
    """A hub repository."""
    revision: Text = "main"
    """Branch, tag or commit of the repository; the commit it resolves to is recorded."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights while running."""

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [key for key in ("train", "path", "repo") if getattr(self, key) is not None]
        if len(given) != 1:
            this = f"{' and '.join(given) or 'none'} (null undoes a key of an earlier file)"
            refuse([("", f"give exactly one of train, path and repo; this gives {this}")])
        if self.revision != "main" and not self.repo:
            refuse([("revision", f"belongs to repo, and this model has {given[0]}; remove revision")])
        return self


class Activations(Section):
    """The cache of activations at ``hook`` over the split ``sae``."""

    format: Literal["parquet", "hdf5"] = "parquet"
    """Of the shards' files."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored numbers."""
    blocks_per_shard: int = Field(default=2048, ge=1)
    """Blocks of text per shard; part of the cache's identity."""
    exclude_bos: bool = True
    """Leave out the BOS position, whose norm dwarfs the others' in most models."""


class SAETraining(Section):
    """One SAE, trained on the cached activations."""

    architecture: Literal["standard", "topk", "batchtopk", "jumprelu"] = "topk"
    """Activation function and loss: ReLU with L1, TopK, BatchTopK, or JumpReLU with L0."""
    d_sae: int = Field(default=512, ge=2)
    """Number of latents."""
    k: int = Field(default=8, ge=1)
    """``topk``, ``batchtopk``: active latents per token."""
    sparsity_coefficient: float = Field(default=1e-3, ge=0)
    """``standard``: of the decoder-norm-weighted L1 term. ``jumprelu``: of the L0 term."""
    bandwidth: float = Field(default=0.05, gt=0)
    """``jumprelu``: width of the rectangle kernel of the straight-through estimators, in normalised units."""
    batch_size: int = Field(default=2048, ge=1)
    """Activations per step."""
    tokens: int = Field(default=1_500_000, ge=1)
    """Activations to train on; passes over the cache repeat, each in another order."""
    learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    """Peak of the schedule (Adam)."""
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps, at the start, over which the learning rate rises to its peak."""
    decay_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    dead_after: int = Field(default=200_000, ge=1)
    """A latent is dead when it has not fired for this many tokens."""
    auxiliary_coefficient: float = Field(default=1 / 32, ge=0)
    """``topk``, ``batchtopk``: of the auxiliary loss that revives dead latents."""

    @model_validator(mode="after")
    def _agrees(self) -> SAETraining:
        found = []
        if self.architecture in ("topk", "batchtopk") and self.k >= self.d_sae:
            found.append(("k", f"{self.k} must be smaller than d_sae {self.d_sae}"))
        if self.warmup_fraction + self.decay_fraction > 1:
            found.append(("decay_fraction", "adds up with warmup_fraction to more than 1"))
        if self.tokens < self.batch_size:
            found.append(("tokens", f"{self.tokens} is less than one batch_size {self.batch_size}"))
        refuse(found)
        return self


class SAE(Section):
    """An SAE of the study: trained here, or a local SAELens 6 directory."""

    train: SAETraining | None = None
    """Train it here, on the cached activations."""
    path: Text | None = None
    """A directory with cfg.json and sae_weights.safetensors. ``${NAME}`` is read from the environment."""

    @model_validator(mode="after")
    def _one_source(self) -> SAE:
        if (self.train is None) == (self.path is None):
            this = f"{'both' if self.path else 'none'} (null undoes a key of an earlier file)"
            refuse([("", f"give exactly one of train and path; this gives {this}")])
        return self


class Sampling(Section):
    """How the next token is drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep the k most probable tokens; null keeps all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Then keep the smallest set whose probability reaches this; null keeps all.

    The published SAE-TS runs name top_k 50 and top_p 0.3, but the sampler they used ignores top_p once top_k is
    set: write ``{top_k: 50}`` for what they did, both for what they say."""


class Scale(Section):
    """How much of a steering vector is added while its effects are measured."""

    rule: Literal["loss_increase", "loss", "fixed"] = "loss_increase"
    """``loss_increase``: the unsteered loss plus ``value`` nats per token (the paper's rule). ``loss``: an absolute
    loss (the published code's). ``fixed``: the scale itself."""
    value: float = Field(default=0.5, gt=0)
    """What the rule aims at, in the rule's unit."""
    maximum: float = Field(default=4.0, gt=0)
    """Largest scale tried, as a multiple of the mean activation norm at the hook."""
    search: Literal["bisect", "scan"] = "bisect"
    """``scan``: the published linear scan with interpolation, for parity."""
    steps: int = Field(default=10, ge=2)
    """``bisect``: the finest bracket is ``maximum`` halved this often; the search ends once the loss is within 2 % of
    the wanted rise. ``scan``: intervals up to ``maximum``."""
    tokens: int = Field(default=2048, ge=64)
    """Tokens of the split ``eval`` whose loss is measured, per scale tried."""


class Effects(Section):
    """What steering vectors do to the mean activation of every latent."""

    vectors: Literal["decoder", "random", "mixtures"] = "decoder"
    """``decoder``: rows of the SAE's decoder. ``random``: directions drawn uniformly. ``mixtures``: of two rows."""
    count: int | None = Field(default=None, ge=1)
    """How many vectors; null is one per latent."""
    block_size: int = Field(default=128, ge=1)
    """Vectors per shard; part of the result's identity."""
    prompts: list[str] = Field(default=["", "I think", "Last night"], min_length=1)
    """What the rollouts start from; the empty text is BOS alone, and a prompt named twice weighs twice."""
    samples: int = Field(default=8, ge=1)
    """Rollouts per vector and prompt."""
    baseline_samples: int = Field(default=128, ge=2)
    """Unsteered rollouts per prompt."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens generated per rollout."""
    sampling: Sampling = Sampling()
    """How the rollouts' tokens are drawn."""
    scale: Scale = Scale()
    """How strongly each vector is added."""
    positions: Literal["generated", "all"] = "generated"
    """Whose activations are averaged: generated tokens, or prompt tokens too. BOS never."""


class Approximator(Section):
    """The linear map from a unit steering vector to its effects, ``effects ≈ vector @ M + b``."""

    method: Literal["ridge", "adam"] = "ridge"
    """``ridge``: closed form, penalty chosen on the validation rows. ``adam``: the published recipe."""
    penalties: list[Annotated[float, Field(gt=0)]] = Field(default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], min_length=1)
    """``ridge``: penalties tried, as multiples of the mean eigenvalue of the vectors' covariance."""
    epochs: int = Field(default=15, ge=1)
    """``adam``: passes over the training rows."""
    validation: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the rows that choose the penalty; as many again are held out for the metrics."""


class Goals(Section):
    """Behaviours to steer towards, each described by one YAML file."""

    directory: Text = "workflow/goals/tales"
    """Where the files ``<name>.yaml`` lie; relative to the repository, or absolute."""
    names: Names = Field(min_length=1)
    """Goals of the study, in the order of tables and figures."""


class Steering(Section):
    """Steered completions over a grid of scales."""

    sae: Name | None = None
    """The SAE whose latents are targeted; null is the first of ``saes``."""
    methods: Annotated[list[Literal["caa", "sae", "sae_ts", "pinverse", "rotation", "random"]], Unique] = Field(
        default=["caa", "sae", "sae_ts", "pinverse", "rotation", "random"], min_length=1
    )
    """How vectors are built: ``caa`` from contrast examples, ``sae`` a decoder row, ``sae_ts``, ``pinverse`` and
    ``rotation`` from the effect approximator, ``random`` a control."""
    latents: int = Field(default=1, ge=1)
    """Latents targeted per goal when the goal's file names none: those that tell its examples apart best."""
    bias_weight: float = Field(default=1.0, ge=0)
    """``sae_ts``, ``rotation``: weight of the bias term that is subtracted (λ)."""
    caa_positions: Literal["mean", "last"] = "mean"
    """``caa``: average over the tokens of an example, or its last token. BOS never."""
    scales: list[float] = Field(default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0], min_length=2)
    """How much of a vector is added: starts at 0.0, the unsteered control, and increases."""
    scale_unit: Literal["norm", "absolute"] = "norm"
    """``norm``: scales are multiples of the mean activation norm at the hook."""
    prompts: list[str] = Field(default=["I think"], min_length=1)
    """What completions start from."""
    samples: int = Field(default=64, ge=4)
    """Completions per goal, method, scale and prompt."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens generated per completion."""
    sampling: Sampling = Sampling()
    """How the completions' tokens are drawn."""

    @field_validator("scales")
    @classmethod
    def _increasing(cls, scales: list[float]) -> list[float]:
        if scales != sorted(set(scales)) or scales[0] != 0.0:
            raise ValueError("must start with 0.0 (the unsteered control) and increase")
        return scales


class Judge(Section):
    """Who scores completions, between 0 and 1, for behaviour and for coherence."""

    kind: Literal["planted", "lexical"] = "planted"
    """``planted``: exact, by the grammar; only for the corpus ``tales``. ``lexical``: word lists of the goal for the
    behaviour, the unsteered model's own loss for the coherence; for any language model."""
    saturation: float = Field(default=0.2, gt=0, le=1)
    """``lexical``: share of a completion's words, from the goal's list, that scores 1."""


class Summary(Section):
    """Tables of goals, methods and scales."""

    bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the completions behind every interval."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals."""
    selection: float = Field(default=0.5, gt=0, lt=1)
    """Share of the completions that choose the scale; the others report."""


class Figures(Section):
    """How figures look; nothing else depends on it."""

    dpi: int = Field(default=120, ge=50, le=600)
    """Dots per inch of the .png files."""
    detail_goals: Names = Field(default=[])
    """Goals drawn in detail; empty is the first two."""
    width: float = Field(default=9.0, ge=3, le=30)
    """Width of a figure in inches."""


class Study(Section):
    """The whole config."""

    study: Name
    """Name of the study and of its folder under ``results/``."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of every random draw."""
    corpus: Corpus = Corpus()
    model: Model
    hook: str = Field(pattern=HOOK)
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
        refuse(disagreements(self))
        return self

    @property
    def steering_sae(self) -> str:
        """The SAE whose latents are targeted."""
        return self.steering.sae or next(iter(self.saes))

    @property
    def layer(self) -> int:
        """The layer of the hook."""
        return int(self.hook.split(".")[1])
