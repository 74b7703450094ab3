"""What the workflow's rules say of a study of a language model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.files import LabelledFiles
from saeflow.config.face import Analysis
from saeflow.config.reading import read_pairs
from saeflow.config.sections.saes import Cache
from saeflow.errors import SaeflowError
from saeflow.hub.labelled import Wanted, together
from saeflow.planning.stages import needs
from saeflow.planning.work import Need
from saeflow.workflow import Workflow, digest, repeated

CORE_RULES = (
    *("study", "published", "corpus", "models"),
    *("activations", "manifests", "saes", "sae_metrics"),
)


class StudyWorkflow(Workflow[Study]):
    """The rules' view of a study of a language model."""

    def __init__(self, study: Study, checkout: Path | None, fetch: Callable[[str], str]) -> None:
        names: dict[str, Sequence[str]] = {
            "study": [study.study],
            "model": [study.model.name],
            "sae": list(study.saes),
            "split": ["model", "sae", "eval"],
            "tuned": list(study.tuned_models),
        }
        for analysis, own in study.asked:
            names |= analysis.names(study, own)
        super().__init__(study, names, checkout, fetch)
        for model in study.all_models.values():
            if model.tune and os.path.exists(file := self.sought(model.tune.path)):
                read_pairs(Path(file))  # what is wrong with it is told before any job
        self.read = {analysis.key: self._read(analysis, own) for analysis, own in study.asked}

    def texts(self, wildcards: Any) -> list[Any]:
        """An input function: the corpus' files and folders of text, local or fetched."""
        corpus = self.study.corpus
        return [
            *(self.sought(path) for path in corpus.paths),
            *([self.located("corpus/text")] if corpus.dataset else []),
        ]

    def corpus_options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the options ``--text``, none for `tales`."""
        return [] if self.study.corpus.kind == "tales" else repeated("--text", input.text)

    def copied(self, ending: str = "") -> Callable[[Any], Any]:
        """An input function: the model that a tuned one is a copy of, or what lies beside it."""
        return lambda wildcards: self.located(
            f"models/{self.study.tuned_models[wildcards.model]}{ending}"
        )

    def pairs(self, wildcards: Any, input: Any) -> str:
        """A param: the file of pairs that a model is tuned on."""
        tune = self.study.all_models[wildcards.model].tune
        return self.sought(tune.path) if tune else ""

    def pairs_said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what the file says, as a goal's is; where it lies and how old
        it is is none."""
        return digest(read_pairs(Path(self.pairs(wildcards, None))))

    def _read(self, analysis: Analysis[Study, Any], own: Any) -> Any:
        """What the rules of an analysis read of files that the config names: what is wrong with
        them is told with the config, not by a job hours later.

        Raises:
            SaeflowError: the key of the analysis, the file, and what is wrong.
        """
        reader = analysis.declared("rules", "READS")
        try:
            return reader and reader(self, own)
        except SaeflowError as error:
            key, lines = analysis.key, str(error).splitlines()
            keyed = (line if line.startswith(f"{key}.") else f"{key}: {line}" for line in lines)
            raise SaeflowError("\n".join(keyed)) from None

    def needs(self, root: Path) -> list[Need]:
        """What the study reads from outside."""
        return needs(self.study, root)

    @property
    def model(self) -> str:
        """The model's folder, below the study's."""
        return f"models/{self.study.model.name}"

    @property
    def cache(self) -> str:
        """What vouches for the cache of activations at the study's own hook."""
        return f"activations/{self.study.model.name}/{self.study.hook}/manifest.json"

    @property
    def core_results(self) -> list[str]:
        """What every study is run for."""
        return [*super().core_results, "saes/summary.parquet", "models/{tuned}.tuning.parquet"]

    @property
    def rule_files(self) -> list[str]:
        """The files of rules, in the order in which they are read."""
        asked = [analysis.key for analysis, _ in self.study.asked]
        fetched = ["labelled"] if self.labelled else []
        return [*CORE_RULES, *fetched, *asked, "figures", "report", "publish"]

    @property
    def labelled(self) -> dict[str, Wanted]:
        """What is fetched of labelled texts, by the folder for it: all that analyses name."""
        files = (getattr(each, "files", None) for each in self.read.values())
        named = (each.fetched for each in files if isinstance(each, LabelledFiles))
        return together(source for sources in named for source in sources.items())

    @property
    def targets(self) -> dict[str, list[str]]:
        """What may be asked for by name, and what each makes."""
        return {
            **super().targets,
            "evaluate": [*self.core_results[2:], *self.analysed],
            "publish": ["publish/record.json"],
        }

    def report_sources(self) -> list[Any]:
        """Everything that the report shows; its command is told the study's folder and reads these
        files in it."""
        return (
            self.files(
                *self.core_results,
                "models/{model}.metrics.json",
                "saes/{sae}/cfg.json",
                "saes/{sae}/sae_weights.safetensors",
                *self.analysed,
                *(f"figures/{{figure}}.{end}" for end in ("png", "svg", "csv")),
            )
            + self.drawn_tables()
        )

    def publishable(self) -> list[Any]:
        """What the study publishes, of what it computed itself."""
        patterns = [("saes", "saes/{sae}/cfg.json"), ("figures", "figures/{figure}.png")]
        patterns += [
            (analysis.key, pattern)
            for analysis, own in self.study.asked
            for pattern in self.outputs(analysis.key)
            if analysis.publishes
        ]
        wanted = self.study.publish.contents
        named = [pattern for key, pattern in patterns if wanted is None or key in wanted]
        made = self.files("config.yaml", "provenance.json", *named)
        own_files = [file for file in made if file.startswith("results/")]
        measured = [file for file in own_files if Path(file).name == "cfg.json"]
        return [*own_files, *(str(Path(file).with_name("metrics.json")) for file in measured)]

    def _beside(self) -> dict[str, list[str]]:
        """The files that pages show beside the study's own, by the key of the analysis."""
        return {
            analysis.key: [self.sought(str(Path(file).parent), Path(file).name) for file in files]
            for analysis, own in self.study.asked
            if (files := analysis.reads(self.study, own))
        }

    def report_options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where these files lie, as the command's options."""
        folders = {key: Path(files[0]).parent for key, files in self._beside().items()}
        return repeated("--beside", [f"{key}={folder}" for key, folder in folders.items()])

    def report_said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what they say."""
        files = [Path(file) for files in self._beside().values() for file in files]
        contents = b"\n".join(file.read_bytes() for file in files)
        return hashlib.sha256(contents).hexdigest()

    def cached_places(self) -> list[tuple[str, str]]:
        """Model and hook of every cache, if norms at hooks tell what is left out."""
        by_norm = self.study.activations.exclude_norm_above is not None
        caches = self.study.caches.items() if by_norm else ()
        return [(model, hook) for model, hooks in caches for hook in hooks]

    def cached_hooks(self, sae: str) -> list[str]:
        """Those of these hooks that are of the model that an SAE reads."""
        read = self.study.sources_of(sae)[0].model
        return [hook for model, hook in self.cached_places() if model == read]

    def read_models(self, sae: str, suffix: str = "") -> list[Any]:
        """The folders of the models that an SAE or a crosscoder reads, or what they end in with a
        suffix."""
        read = dict.fromkeys(source.model for source in self.study.sources_of(sae))
        return [self.located(f"models/{model}{suffix}") for model in read]

    def sae_descriptions(self) -> str:
        """What each SAE is, by name, as JSON."""
        study = self.study

        def named(sources: Sequence[Cache]) -> str:
            full = bool(study.models)
            return ", ".join(f"{model}:{hook}" if full else hook for model, hook in sources)

        described = {}
        for name, sae in study.saes.items():
            sources = study.sources_of(name)
            described[name] = {
                "kind": sae.kind,
                "reads": named(sources),
                "writes": named(study.caches_of(name)[-1:] if sae.target else sources),
                "leaves_out": sae.leave_out,
                "training": sae.train.model_dump() if sae.train else None,
            }
        return json.dumps(described)
