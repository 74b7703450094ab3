"""The core of every study of a language model: text, models, hooks, activations, SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from saeflow.config.agreement import disagreements
from saeflow.config.face import Analysis
from saeflow.config.section import HookName, Name, Section, Unique, refuse
from saeflow.config.sections.data import Activations, Corpus, Model
from saeflow.config.sections.figures import Figures
from saeflow.config.sections.judging import Calls
from saeflow.config.sections.publish import Publish
from saeflow.config.sections.saes import SAE, Cache, spelled_out, trained_together


class Core(Section):
    """What a study always has; its analyses are added to it by `saeflow.analyses.Study`."""

    analyses: ClassVar[Sequence[Analysis[Any, Any]]] = ()
    """Those that a study of this kind may ask for, in the order of the report."""
    figures_of_core: ClassVar[str] = "saeflow.figures.core"
    """The module that declares the figures of what every study has."""

    kind: Literal["language"] = "language"
    """What is studied; ``chess`` is another kind of study, with [other keys](#a-study-of-chess)."""
    study: Name
    """Name of the study and of its folder under ``results/``."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of every random draw."""
    corpus: Corpus = Corpus()
    model: Model
    models: list[Model] = Field(default=[])
    """Models beside `model` that crosscoders and analyses compare with it, such as a tuned one.
    They read the same tokens, so they must have its tokenizer."""
    hook: HookName
    """Where SAEs read that name no hook of their own, and where vectors are added; a
    TransformerLens name: ``blocks.2.hook_resid_post``."""
    hooks: Annotated[list[HookName], Unique] = Field(default=[])
    """Hooks to cache beside `hook` and those where SAEs are trained."""
    activations: Activations = Activations()
    saes: Annotated[dict[Name, SAE], BeforeValidator(spelled_out)] = Field(min_length=1)
    calls: Calls = Calls()
    figures: Figures = Figures()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _sections_agree(self) -> Core:
        refuse(disagreements(self))
        return self

    @property
    def asked(self) -> list[tuple[Analysis[Any, Any], Any]]:
        """The analyses that the study asks for, with their sections."""
        sections = ((analysis, analysis.section(self)) for analysis in self.analyses)
        return [(analysis, section) for analysis, section in sections if section is not None]

    @property
    def trainings(self) -> dict[str, list[str]]:
        """The SAEs that one job trains together, by the name of their group; alone, by their
        own."""
        return trained_together(self.saes)

    @property
    def cached_hooks(self) -> list[str]:
        """Where activations of the model are cached; first the study's own hook."""
        return self.caches[self.model.name]

    @property
    def caches(self) -> dict[str, list[str]]:
        """Where activations are cached, by model: what SAEs are trained on, and what else the
        config names.

        Where imported SAEs read is among it if an analysis reads their activations.
        """
        read = {name for analysis, own in self.asked for name in analysis.cached_saes(self, own)}
        by_model = {self.model.name: [self.hook, *self.hooks]}
        for name, sae in self.saes.items():
            needed = self.caches_of(name) if sae.train else self.sources_of(name) * (name in read)
            for model, hook in needed:
                by_model.setdefault(model, []).append(hook)
        return {model: list(dict.fromkeys(hooks)) for model, hooks in by_model.items()}

    @property
    def shards(self) -> int:
        """Number of shards of the activation cache at one hook."""
        blocks = self.corpus.tokens.sae // self.corpus.context
        return -(-blocks // self.activations.blocks_per_shard)

    @property
    def all_models(self) -> dict[str, Model]:
        """Every model by its name; first the study's own."""
        return {model.name: model for model in (self.model, *self.models)}

    @property
    def tuned_models(self) -> dict[str, str]:
        """By the name of every model that is tuned here, the one that is copied."""
        return {
            name: model.tune.of or self.model.name
            for name, model in self.all_models.items()
            if model.tune
        }

    def origin_of(self, model: str) -> Model:
        """The model that a tuned one is a copy of; any other is its own origin."""
        return self.all_models.get(self.tuned_models.get(model, model), self.model)

    def key_of(self, model: str) -> str:
        """The key of the section of one of the models."""
        place = list(self.all_models).index(model)
        return f"models.{place - 1}" if place else "model"

    def saes_of(self, *kinds: str) -> list[str]:
        """The names of the SAEs of some kinds: sae, transcoder, crosscoder, difference."""
        return [name for name, sae in self.saes.items() if sae.kind in kinds]

    def own_saes_of(self, *kinds: str) -> list[str]:
        """Those of them that read the study's own model, and no other."""
        own = self.model.name
        return [
            name
            for name in self.saes_of(*kinds)
            if {source.model for source in self.sources_of(name)} == {own}
        ]

    def sources_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs reads: one source, a crosscoder's in their order, or the two of a
        difference, the first of which is taken away."""
        own = self.saes[sae]
        models = own.models or own.difference or [own.model or self.model.name]
        hooks = own.hooks or [own.hook or self.hook]
        return [Cache(model, hook) for model in models for hook in hooks]

    def hook_of(self, sae: str) -> str:
        """Where one of the SAEs reads; of a crosscoder the first hook."""
        return self.sources_of(sae)[0].hook

    def caches_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs is trained on: its sources, and last what a transcoder writes."""
        read, target = self.sources_of(sae), self.saes[sae].target
        return [*read, *([Cache(read[0].model, target)] if target else [])]

    @property
    def layer(self) -> int:
        """The layer of the hook."""
        return int(self.hook.split(".")[1])

    @property
    def last_layer(self) -> int:
        """The last layer that is run for the cache."""
        return max(int(hook.split(".")[1]) for hook in self.cached_hooks)
