"""Sparse autoencoders: trained here or imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from math import prod
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeGuard,
    get_args,
)

from pydantic import Field, model_validator

from saeflow.config.sae_files import SAE_FORMATS, Given
from saeflow.config.section import (
    Complaint,
    HookName,
    LocalPath,
    Name,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.architectures import (
    ARCHITECTURES,
    ArchitectureTraits,
    described,
    readers,
)
from saeflow.config.sections.published import Published, Source, disputes

TARGET_COEFFICIENT = 3.0
DEAD_AFTER = 200_000  # tokens
MOST_MEMBERS = 1000
"""Of one sweep."""
UNTRAINED_CONTROLS = "are trained as the SAE is, and this one comes from elsewhere; remove them"
_OF_PUBLISHED = ("published", "source", "d_sae")
# Of a short training; fewer batches tell little about a rare latent.
RESAMPLINGS, SEEN_BATCHES = 30, 10
Control = Literal["frozen_decoder", "soft_frozen_decoder", "frozen_encoder"]
"""What of an SAE stays random, or near to it."""
if TYPE_CHECKING:
    ArchitectureName: TypeAlias = str
    SAEFormat: TypeAlias = str
else:  # the names are those of the registries, which a type checker cannot read
    ArchitectureName = Literal[tuple(ARCHITECTURES)]
    SAEFormat = Literal["auto", *SAE_FORMATS]


class Cache(NamedTuple):
    """Activations of one model at one hook."""

    model: str
    hook: str


class SAETraining(Section):
    """One SAE, trained on the cached activations."""

    architecture: ArchitectureName = Field(
        default="topk", description=f"Activation function and loss. {described()}."
    )
    d_sae: int = Field(default=512, ge=2, le=2**27)
    """Number of latents."""
    k: int = Field(default=8, ge=1, description=f"{readers('k')}: active latents per token.")
    k_start: int | None = Field(
        default=None,
        ge=1,
        description=f"{readers('k_start')}: active latents per token at the first step, from where "
        "they fall to `k`; null begins with `k`.",
    )
    anneal_fraction: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description=f"{readers('anneal_fraction')}: share of the steps, at the start, over which "
        "`k_start` falls to `k`.",
    )
    delta: float = Field(default=0.0, ge=-1, le=0)
    """Of crosscoders of two sources: how much less it matters that both are rebuilt than that their
    difference is. λ of ``|e_A|² + |e_B|² + 2 λ e_A·e_B`` with the errors of the two: at 0 both
    count alone, at -1 the loss is ``|e_B - e_A|²``, that of an SAE of the difference which reads
    both."""
    sparsity_coefficient: float | None = Field(default=None, ge=0)
    """Price of activity: of the decoder-norm-weighted L1 term (``standard``, ``gated``; null is
    0.015), of the L0 term (``jumprelu``; null is 0.004) or of the squared miss of `target_l0` (null
    is 3)."""
    target_l0: float | None = Field(default=None, gt=0)
    """``jumprelu``: active latents per token to aim at, priced by ``(L0 / target_l0 - 1)²``. Null
    prices L0 itself."""
    bandwidth: float = Field(default=0.05, gt=0)
    """``jumprelu``: width of the rectangle kernel of the straight-through estimators, in normalised
    units."""
    prefixes: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Unique] = Field(
        default=[0.0625, 0.125, 0.25, 0.5]
    )
    """``matryoshka``: shares of the latents, counted from the first, that must reconstruct
    alone."""
    batch_size: int = Field(default=2048, ge=1)
    """Activations per batch."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added up for one step."""
    tokens: int = Field(default=1_500_000, ge=1)
    """Activations to train on; passes over the cache repeat, each in another order."""
    learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    """Peak of the schedule (Adam)."""
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps, at the start, over which the learning rate rises to its peak."""
    decay_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls to zero."""
    initial_bias: Literal["mean", "geometric_median"] = "mean"
    """Where the decoder's bias starts: at the mean of the cache, or at the geometric median of the
    first batch."""
    dead_after: int | None = Field(default=None, ge=1)
    """A latent is dead when it has not fired for this many tokens. Null is 200,000; where dead
    latents are resampled, as they are where activity has a price, no more than a thirtieth of
    `tokens`, or ten batches if these are more: so a short training resamples, too."""
    auxiliary_coefficient: float = Field(
        default=1 / 32,
        ge=0,
        description=f"{readers('auxiliary_coefficient')}: of the auxiliary loss that revives dead "
        "latents.",
    )
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the dense matrix products; weights, their sums and sparse products are in float32."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Tells SAEs apart that differ in nothing else."""
    init_from: LocalPath | None = None
    """Begin with another SAE's weights in place of random ones: the name of an SAE of the study, or
    a folder or file as `path` of an SAE names it. It must have this architecture, ``d_sae`` and
    width; its weights are brought to the statistics of this training's activations."""
    control: Control | None = None
    """Train a control in place of an SAE: ``frozen_decoder`` and ``frozen_encoder`` keep the random
    directions that the matrix begins with, ``soft_frozen_decoder`` keeps each row of the decoder
    within cosine 0.8 of where it began. `controls` of an SAE trains them beside it."""

    @property
    def traits(self) -> ArchitectureTraits:
        """What is known of the architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def coefficient(self) -> float:
        """`sparsity_coefficient`, or its default for the architecture."""
        if self.sparsity_coefficient is not None:
            return self.sparsity_coefficient
        return TARGET_COEFFICIENT if self.target_l0 else self.traits.coefficient

    @property
    def dead_window(self) -> int:
        """`dead_after`, or its default for the architecture and the length of the training."""
        if self.dead_after is not None:
            return self.dead_after
        if self.traits.takes_k:
            return DEAD_AFTER
        return min(
            DEAD_AFTER,
            max(self.tokens // RESAMPLINGS, SEEN_BATCHES * self.batch_size * self.accumulate),
        )

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return math.ceil(self.tokens / (self.batch_size * self.accumulate))

    @model_validator(mode="after")
    def _agrees(self) -> SAETraining:
        complaints = []
        if self.traits.takes_k and self.k >= self.d_sae:
            complaints.append(("k", f"{self.k} must be smaller than d_sae {self.d_sae}"))
        if self.k_start is not None:
            if not self.traits.takes_k:
                its = readers("k_start", mark="'")
                reason = f"is of {its} only; '{self.architecture}' has no k"
                complaints.append(("k_start", reason))
            elif not self.k < self.k_start < self.d_sae:
                reason = f"{self.k_start} must be between k {self.k} and d_sae {self.d_sae}"
                complaints.append(("k_start", reason))
        if self.target_l0 is not None and "target_l0" not in self.traits.settings:
            its = readers("target_l0", mark="'")
            reason = f"is of {its} only; '{self.architecture}' has k or sparsity_coefficient"
            complaints.append(("target_l0", reason))
        if self.warmup_fraction + self.decay_fraction > 1:
            complaints.append(("decay_fraction", "adds up with warmup_fraction to more than 1"))
        if self.control and self.init_from:
            reason = "has its own weights to begin with, and a control has random ones; remove it"
            complaints.append(("init_from", reason))
        if self.tokens < self.batch_size * self.accumulate:
            step = f"batch_size {self.batch_size}" + (
                f" × accumulate {self.accumulate}" if self.accumulate > 1 else ""
            )
            complaints.append(("tokens", f"{self.tokens} is less than one {step}"))
        refuse(complaints)
        return self


class SAE(Section):
    """An SAE of the study: trained here, imported from a local folder, or fetched from a hub. With
    `target` it is a transcoder, with `hooks` or `models` a crosscoder, with `difference` an SAE of
    what sets two models apart."""

    train: SAETraining | None = None
    """Train it here, on the cached activations."""
    sweep: dict[str, Annotated[list[int | float | str], Field(min_length=1)]] | None = Field(
        default=None, min_length=1
    )
    """Keys of `train` with several values each. Every combination is an SAE named after it
    (``main-k-16``), and all are one `group`."""
    controls: Annotated[list[Control], Unique] = Field(default=[])
    """Controls that are trained beside it, in the same job and on the same batches: each is an SAE
    named after it (``main-frozen_decoder``), equal but for `train.control`, without ``init_from``.
    What an SAE has in common with them it has not learnt."""
    group: Name | None = None
    """SAEs of one group are trained by one job, which reads the cache once for all."""
    hook: HookName | None = None
    """Where it reads. Null is the study's `hook`, where the SAE must read whose latents are
    targeted."""
    target: HookName | None = None
    """Transcoder: the hook whose activation it computes from the one that it reads."""
    hooks: Annotated[list[HookName], Field(min_length=2), Unique] | None = None
    """Crosscoder: the hooks that it reads and rebuilds together; they have one width."""
    model: Name | None = None
    """The model, by name, whose activations it reads. Null is the study's `model`, which most
    analyses look at: an SAE of another is trained, measured and asked about directions."""
    models: Annotated[list[Name], Field(min_length=2), Unique] | None = None
    """Crosscoder: the models, by name, whose activations at `hook` or `hooks` it reads and rebuilds
    together."""
    difference: Annotated[list[Name], Field(min_length=2, max_length=2), Unique] | None = None
    """Two models, by name: it reads and rebuilds what the second holds at `hook` less what the
    first holds there on the same tokens."""
    leave_out: Annotated[list[Text], Field(min_length=1), Unique] | None = None
    """Words, in any case: blocks of the corpus in which one occurs are not trained on. So two SAEs
    differ in whether they saw what the words are about."""
    path: LocalPath | None = None
    """A folder with an SAE, as one of the formats has it, or its one file. ``${NAME}`` is read from
    the environment."""
    format: SAEFormat = "auto"
    """The format of ``path`` or ``published``; ``auto`` tells it from the names of the files."""
    centred: bool = False
    """Of ``path`` or ``published``: it was trained on activations less their mean over the width,
    as TransformerLens makes those of GPT-2. Its encoder is changed to read them as they are."""
    k: int | None = Field(default=None, ge=1)
    """Of ``path`` or ``published``: latents per token that TopK keeps, where the files do not say
    it."""
    scale: float | None = Field(default=None, gt=0)
    """Of ``path`` or ``published``: what activations were multiplied by before the SAE read them,
    where the files do not say it; SAELens' registry lists it as ``norm_scaling_factor``."""
    threshold: float | None = Field(default=None, ge=0)
    """Of ``path`` or ``published``: what a latent's value must exceed, where BatchTopK was saved
    without the threshold of its training."""
    apply_b_dec_to_input: bool | None = None
    """Of a ``single_file``: whether the decoder's bias is subtracted from the input. Null is what
    is usual where its tensors have such names."""
    normalize_activations: Literal["layer_norm", "constant_norm_rescale"] | None = None
    """Of ``path`` or ``published``: how each token's activation was normalised by itself, where the
    files do not say it: to a standard deviation of 1 around 0, or to norm √d_model."""
    published: Published | None = None
    """An SAE on a hub: its folder, or its one file."""
    d_sae: int | None = Field(default=None, ge=1, le=2**27)
    """Number of latents of an SAE that is fetched; only needed where effects are computed, whose
    jobs it counts."""
    source: Source = "auto"
    """``auto``: what is on disk already, else ``published``, else ``train`` or ``path``.
    ``compute`` and ``fetch`` insist."""

    @model_validator(mode="after")
    def _one_source(self) -> SAE:
        given = [key for key in ("train", "path") if getattr(self, key) is not None]
        if len(given) == 2 or not (given or self.published):
            this = (
                f"{'both train and path' if given else 'none'} (null undoes a key of an earlier "
                "file)"
            )
            refuse([("", f"give one of train, path and published; this gives {this}")])
        if not self.train and self.group:
            refuse([("group", "is for SAEs that are trained here; this one is imported")])
        if self.controls and not self.train:
            refuse([("controls", UNTRAINED_CONTROLS)])
        complaints = disputes(self.published, self.source, None if given else "train or path")
        if self.centred and self.train:
            reason = (
                "is for SAEs from elsewhere; one that is trained here reads activations as they are"
            )
            complaints.append(("centred", reason))
        if self.leave_out and not self.train:
            reason = "is for SAEs that are trained here; this one was trained elsewhere"
            complaints.append(("leave_out", reason))
        if self.train:
            for key, value in self.given._asdict().items():
                its = f"give train.{key}" if key in SAETraining.model_fields else "remove it"
                reason = f"is for SAEs from elsewhere, and this one is trained here; {its}"
                complaints += [] if value is None else [(key, reason)]
        if self.d_sae and not self.published:
            its = "train" if self.train else "path"
            reason = f"belongs to published, and this SAE has {its}; remove it"
            complaints.append(("d_sae", reason))
        if self.d_sae and self.train and self.d_sae != self.train.d_sae:
            reason = f"{self.d_sae} is not train.d_sae {self.train.d_sae}; make them equal"
            complaints.append(("d_sae", reason))
        refuse(complaints + self._about_the_kind())
        return self

    @property
    def given(self) -> Given:
        """What the files of an SAE from elsewhere do not say."""
        return Given(**{name: getattr(self, name) for name in Given._fields})

    @property
    def declared_width(self) -> int | None:
        """Number of latents, where the config says it."""
        return self.train.d_sae if self.train else self.d_sae

    @property
    def kind(self) -> Literal["sae", "transcoder", "crosscoder", "difference"]:
        """What it is by what it reads and writes."""
        if self.difference:
            return "difference"
        return "crosscoder" if self.hooks or self.models else "transcoder" if self.target else "sae"

    def _about_the_kind(self) -> list[Complaint]:
        complaints = []
        if self.hook and self.hooks:
            complaints.append(("hook", "is one of hooks already; give hook or hooks"))
        if self.model and self.models:
            complaints.append(("model", "is one of models already; give model or models"))
        of_two = {"crosscoder": "a crosscoder", "difference": "an SAE of a difference"}
        what = of_two.get(self.kind)
        if what and self.target:
            complaints.append(("target", f"is a transcoder's; {what} rebuilds what it reads"))
        if what and self.train and not self.train.traits.crosscoder:
            across = ", ".join(name for name, its in ARCHITECTURES.items() if its.crosscoder)
            reason = f"'{self.train.architecture}' is not one of {across}, which {what} may be"
            complaints.append(("train.architecture", reason))
        if self.difference:
            for key in ("model", "models", "hooks"):
                reason = "stands beside difference, which names two models at hook; give one"
                complaints += [(key, reason)] if getattr(self, key) else []
            if not self.train:
                reason = "is for SAEs that are trained here, and this one is imported; give train"
                complaints.append(("difference", reason))
        sources = len(self.models or [""]) * len(self.hooks or [""])
        if self.train and self.train.delta and sources != 2:
            reason = f"is for crosscoders of two sources, and this {self.kind} reads {sources}"
            complaints.append(("train.delta", f"{reason}; remove it, or name two"))
        if self.kind == "crosscoder" and self.published:
            reason = "is for SAEs and transcoders; give a crosscoder's folder in path"
            complaints.append(("published", reason))
        return complaints


class TrainedOrNot(Protocol):
    """What any kind of study says of one of its SAEs."""

    @property
    def train(self) -> SAETraining | None: ...
    @property
    def group(self) -> str | None: ...


def trained_together(saes: Mapping[str, TrainedOrNot]) -> dict[str, list[str]]:
    """The SAEs that one job trains together, by the name of their group; alone, by their own."""
    groups: dict[str, list[str]] = {}
    for name, sae in saes.items():
        if sae.train:
            groups.setdefault(sae.group or name, []).append(name)
    return groups


def spelled_out(saes: Any) -> Any:
    """The study's SAEs with every sweep replaced by its members, and each followed by its
    controls."""
    return _with_controls(_without_sweeps(saes))


def _with_controls(saes: Any) -> Any:
    """The SAEs, of which none names controls: these follow it, in its group.

    Raises:
        ContradictionError: a control has the name of another SAE.
    """
    if not isinstance(saes, dict):
        return saes
    expanded: dict[Any, Any] = {}
    complaints: list[Complaint] = []
    for name, sae in saes.items():
        controls = sae.get("controls") if isinstance(sae, dict) else None
        if not _are_controls(controls) or not isinstance(sae.get("train"), dict):
            expanded[name] = sae  # left to its own checks
            continue
        group = {"group": sae.get("group") or name, "controls": []}
        expanded[name] = {**sae, **group}
        kept = {key: value for key, value in sae.items() if key not in _OF_PUBLISHED}
        for control in controls:
            if (member := f"{name}-{control}") in saes:
                reason = f"its control '{member}' has the name of another SAE; rename one"
                complaints.append((f"{name}.controls", reason))
            chosen = {**sae["train"], "control": control, "init_from": None}
            expanded[member] = {**kept, **group, "train": chosen}
    refuse(complaints)
    return expanded


def _are_controls(controls: Any) -> TypeGuard[list[str]]:
    return (
        isinstance(controls, list)
        and bool(controls)
        and all(isinstance(name, str) and name in get_args(Control) for name in controls)
        and len(set(controls)) == len(controls)
    )


def _without_sweeps(saes: Any) -> Any:
    """The SAEs with every sweep replaced by its members; what is not a sweep is left to its own
    checks.

    Raises:
        ContradictionError: a member has the name of another SAE.
    """
    if not isinstance(saes, dict):
        return saes
    expanded: dict[Any, Any] = {}
    complaints: list[Complaint] = []
    for name, sae in saes.items():
        sweep = sae.get("sweep") if isinstance(sae, dict) else None
        if not isinstance(sweep, dict) or not _is_sweep(sweep, sae.get("train", {})):
            if name in expanded:
                reason = "a member of a sweep has this name, too; choose another"
                complaints.append((str(name), reason))
            expanded[name] = sae
            continue
        if (members := prod(map(len, sweep.values()))) > MOST_MEMBERS:
            reason = f"has {members:,} members; the most is {MOST_MEMBERS:,}, take fewer values"
            complaints.append((f"{name}.sweep", reason))
            continue
        kept = {key: value for key, value in sae.items() if key != "sweep"}
        for values in product(*sweep.values()):
            chosen = dict(zip(sweep, values, strict=True))
            member = "-".join([str(name), *(f"{key}-{value}" for key, value in chosen.items())])
            if member in expanded:
                reason = f"its member '{member}' has the name of another SAE; rename one"
                complaints.append((f"{name}.sweep", reason))
            expanded[member] = {"group": name, **kept, "train": {**sae.get("train", {}), **chosen}}
    refuse(complaints)
    return expanded


def _is_sweep(sweep: dict[Any, Any], train: Any) -> bool:
    lists = all(isinstance(values, list) and values for values in sweep.values())
    return bool(sweep) and lists and isinstance(train, dict)
