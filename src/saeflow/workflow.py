"""What the workflow's rules say of a study: inputs, params and options, from its config.

Everything that is particular to an analysis lies in ``rules.py`` of its folder. Values for
``params`` are functions where they may hold text of the config, as Snakemake takes braces in plain
text for wildcards; a function that has an argument ``input`` triggers no rerun.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient

from saeflow.config.digests import settings_digests
from saeflow.config.locations import fetched, filled, location
from saeflow.config.sae_files import Given
from saeflow.config.section import Section
from saeflow.errors import SaeflowError
from saeflow.figures.figure import figures_of
from saeflow.planning.work import Need, missing
from saeflow.provenance import declare

LINES_OF_A_LOG = 10  # that are shown where a job failed
BETWEEN = ("activations", "benchmarks", "checkpoints", "corpus", "games", "logs", "models")
"""Folders of a study that hold what jobs hand on, and no target."""

S = TypeVar("S", bound=Any)
Param = Callable[[Any], Any]


class Workflow(ABC, Generic[S]):
    """The rules' view of one study.

    Args:
        study: of any kind.
        names: what may stand for names in braces, such as ``{sae}``, in `files`.
        checkout: the folder of the Snakefile; None where Snakemake reads it from elsewhere.
        fetch: finds a file of the workflow there.
    """

    def __init__(
        self,
        study: S,
        names: Mapping[str, Sequence[str]],
        checkout: Path | None,
        fetch: Callable[[str], str],
    ) -> None:
        self.declared = f"results/{study.study}/.settings.json"
        self.study, self.figures = study, figures_of(study)
        self.names = {**names, "figure": list(self.figures)}
        self._checkout, self._fetch = checkout, fetch

    def shipped(self, path: str) -> str:
        """A file that comes with the workflow; by a relative path if it can be, so that a checkout
        may be moved."""
        if self._checkout is None:
            return self._fetch(f"../{path}")
        file, here = self._checkout / path, Path.cwd()
        return str(file.relative_to(here) if file.is_relative_to(here) else file)

    def sought(self, path: str, below: str = "") -> str:
        """A path of the config, and what lies `below` it: in the working directory where it is
        there, else shipped, if it is."""
        file = os.path.join(path, below) if below else path
        if os.path.exists(path):
            return file
        shipped = self.shipped(file)
        return shipped if not self._checkout or os.path.exists(self.shipped(path)) else file

    def is_fetched(self, path: str) -> bool:
        """Whether one artifact is fetched rather than our own."""
        return fetched(self.study, path, os.path.exists)

    def located(self, path: str) -> Any:
        """Where an artifact below ``results/<study>/`` lies, or will: our own, or the published one
        below ``resources/published/``.

        What was fetched is ``ancient``: that it is fetched again is no news, and another source is
        another path. So are folders of models, whose age says nothing.
        """
        place = location(self.study, path, os.path.exists)
        is_model = path.removeprefix("models/") in getattr(self.study, "all_models", ())
        return ancient(place) if self.is_fetched(path) or is_model else place

    def artifact(self, path: str) -> Param:
        """An input function: `located`, once wildcards are known."""
        return lambda wildcards: self.located(path.format(**wildcards))

    def model_inputs(self, path: str, name: str = "model") -> dict[str, Param]:
        """Inputs of whoever runs a model: its folder, and the checksums of its files.

        Snakemake keeps no checksum of a folder, so that a copy of a study would be older and newer
        than itself.
        """
        checksums = self.artifact(f"{path}.checksums.json")
        return {name: self.artifact(path), f"{name}_checksums": checksums}

    def files(self, *patterns: str) -> list[Any]:
        """Every file of the study that patterns name, with ``{goal}``, ``{method}``, … filled in
        each way."""
        return [self.located(file) for pattern in patterns for file in filled(pattern, self.names)]

    def tables(self, figure: str) -> list[Any]:
        """The tables that a figure is drawn from; for one in a model's folder that folder, which
        one job makes as a whole."""
        drawn = self.figures[figure]
        names = {**self.names, **drawn.names(self.study)}
        made = (re.sub(r"^(models/\{model\})/.*", r"\1", pattern) for pattern in drawn.tables)
        return [self.located(file) for pattern in made for file in filled(pattern, names)]

    def drawn_tables(self) -> list[Any]:
        """Every table that a figure is drawn from."""
        return sorted({table for figure in self.figures for table in self.tables(figure)})

    def figure_facts(self, wildcards: Any) -> str:
        """A param: what a figure is told of the config, as JSON."""
        return json.dumps(dict(self.figures[wildcards.figure].facts(self.study)))

    def caption(self, wildcards: Any, input: Any) -> str:
        """What Snakemake's own report says below a figure."""
        drawn = self.figures[wildcards.figure]
        return f"**{drawn.title}.** {drawn.caption}"

    @property
    def core_results(self) -> list[str]:
        """What every study is run for."""
        return ["config.yaml", "provenance.json", "saes/{sae}/metrics.json"]

    @property
    def analysed(self) -> list[str]:
        """What the study is run for beside: the outputs of its analyses."""
        return [path for analysis, _ in self.study.asked for path in self.outputs(analysis.key)]

    def outputs(self, key: str) -> list[str]:
        """The outputs of one analysis that is asked for."""
        analysis, own = next(asked for asked in self.study.asked if asked[0].key == key)
        return list(analysis.outputs(self.study, own))

    @property
    def results(self) -> list[str]:
        """The patterns of what the target ``all`` makes."""
        pictures = ["figures/{figure}.png"] if self.figures else []
        return [*self.core_results, *self.analysed, *pictures, "report/index.html"]

    @abstractmethod
    def needs(self, root: Path) -> list[Need]:
        """What the study reads from outside.

        Args:
            root: the folder that ``results/`` lies in.
        """

    def everything(self, wildcards: Any) -> list[Any]:
        """What the target ``all`` makes.

        Raises:
            SaeflowError: what some of it is made of is not there: a line for each key.
        """
        absent = missing(self.needs(Path.cwd()), Path("results", self.study.study))
        if lines := [need.said() for need in absent if need.made]:
            raise SaeflowError("\n".join(lines))
        return self.files(*self.results)

    @property
    def targets(self) -> dict[str, list[str]]:
        """What may be asked for by name, and what each makes."""
        caches = [
            f"activations/{model}/{hook}/manifest.json"
            for model, hooks in self.study.caches.items()
            for hook in hooks
        ]
        return {
            "activations": caches,
            "saes": [path for path in self.core_results if path.startswith("saes/")],
            **{analysis.key: self.outputs(analysis.key) for analysis, _ in self.study.asked},
            "plots": ["figures/{figure}.png"],
        }

    @property
    def not_asked(self) -> list[str]:
        """The keys of the analyses that the study does not ask for."""
        return [each.key for each in self.study.analyses if each.section(self.study) is None]

    def target(self, name: str) -> Param:
        """An input function: what a target makes.

        Raises:
            SaeflowError: it is that of an analysis that the study does not ask for.
        """

        def makes(wildcards: Any) -> list[Any]:
            if name in self.not_asked:
                raise SaeflowError(
                    f"{name}: is not asked for in this study; write `{name}: {{}}` in its config"
                )
            return self.files(*self.targets[name])

        return makes

    def at(self, *keys: str, wildcards: Any = None) -> Any:
        """The value at some keys of the config; ``{sae}`` among them stands for the wildcard."""
        value = self.study
        for key in keys:
            key = key.format(**(wildcards or {}))
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        return value

    def settings(self, *keys: str) -> Param:
        """A param: one section of the config, whole, as the JSON that a command takes; without
        keys the whole config.

        It is what the job's result depends on, and so what triggers a rerun. What might have been
        fetched instead is no part of it.
        """
        left_out = {"published", "source"} if keys else None

        def of(wildcards: Any) -> str:
            section: Section = self.at(*keys, wildcards=wildcards)
            return section.model_dump_json(exclude=left_out, ensure_ascii=True)

        return of

    def published(self, *keys: str) -> Param:
        """A param: where a section says that its artifact is published, as JSON."""

        def of(wildcards: Any) -> str:
            section: Section = self.at(*keys, "published", wildcards=wildcards)
            return section.model_dump_json(exclude_defaults=True, ensure_ascii=True)

        return of

    def path_at(self, *keys: str) -> Param:
        """An input: the file that a key of the config names, if it does."""
        return lambda wildcards: self.at(*keys, wildcards=wildcards) or []

    def sae_settings(self, names: Iterable[str]) -> str:
        """How the SAEs of one job are trained, by name, as JSON."""
        return json.dumps({name: self.study.saes[name].train.model_dump() for name in names})

    def manifests(self, sae: str) -> list[Any]:
        """What vouches for the activation caches that one SAE is trained on; of a transcoder, last
        what it writes."""
        return [
            self.located(f"activations/{model}/{hook}/manifest.json")
            for model, hook in self.study.caches_of(sae)
        ]

    def initial_saes(self, names: Iterable[str]) -> dict[str, Any]:
        """Whose weights the trainings of SAEs begin with, by name: the files of another SAE of the
        study, or what the config names."""
        begun = {name: self.study.saes[name].train.init_from for name in names}
        return {
            name: self.located(f"saes/{other}/sae_weights.safetensors")
            if other in self.study.saes
            else self.sought(other)
            for name, other in begun.items()
            if other
        }

    def initial_options(self, names: Iterable[str]) -> list[str]:
        """The options ``--init`` of these trainings."""
        return repeated(
            "--init",
            [
                f"{name}={os.path.dirname(path) if other in self.study.saes else path}"
                for name, path in self.initial_saes(names).items()
                for other in [self.study.saes[name].train.init_from]
            ],
        )

    def text_inputs(self, names: Sequence[str]) -> list[Any]:
        """What trainings read the text of their activations from, where they leave some of it out:
        the corpus, and the folder of the model whose tokens it has, with its checksums."""
        if not self.left_out(names):
            return []
        model = next(iter(self.study.all_models))
        return [
            f"results/{self.study.study}/corpus/sae.safetensors",
            self.located(f"models/{model}"),
            self.located(f"models/{model}.checksums.json"),
        ]

    def left_out(self, names: Sequence[str]) -> list[str]:
        """The words whose blocks trainings of one job leave out."""
        return list(getattr(self.study.saes[names[0]], "leave_out", None) or ())

    def text_options(self, names: Sequence[str]) -> list[str]:
        """The options ``--leave-out``, ``--corpus`` and ``--tokenizer`` of these trainings."""
        if not (files := self.text_inputs(names)):
            return []
        words = repeated("--leave-out", self.left_out(names))
        return [*words, "--corpus", str(files[0]), "--tokenizer", str(files[1])]

    def manifest_options(self, sae: str, files: Sequence[str]) -> list[str]:
        """The options ``--manifest``, ``--target`` and ``--difference``, from the files that
        `manifests` names."""
        kind = self.study.saes[sae].kind
        read, written = (files[:-1], files[-1:]) if kind == "transcoder" else (files, [])
        options = [*repeated("--manifest", read), *repeated("--target", written)]
        return [*options, *["--difference"] * (kind == "difference")]

    def all_manifests(self) -> list[Any]:
        """What vouches for every activation cache of the study."""
        return [
            self.located(f"activations/{model}/{hook}/manifest.json")
            for model, hooks in self.study.caches.items()
            for hook in hooks
        ]

    def import_options(self, wildcards: Any) -> list[str]:
        """Where an SAE that is imported reads and writes, as the command's options."""
        sources = self.study.sources_of(wildcards.sae)
        if self.study.saes[wildcards.sae].kind == "crosscoder":
            return repeated("--source", [f"{model}:{hook}" for model, hook in sources])
        return self.place_options(wildcards)

    def place_options(self, wildcards: Any) -> list[str]:
        """Where an SAE or a transcoder reads and writes, and what its files do not say, as the
        command's options."""
        sae = self.study.saes[wildcards.sae]
        hook = ["--hook", self.study.hook_of(wildcards.sae)]
        return [*hook, *repeated("--target", filter(None, [sae.target])), *_given(sae.given)]

    def shards(self, wildcards: Any) -> list[str]:
        """The shards of the activation cache at one hook: a fixed number of rows each."""
        suffix = {"parquet": "parquet", "hdf5": "h5"}[self.study.activations.format]
        folder = f"results/{wildcards.study}/activations/{wildcards.model}/{wildcards.hook}"
        numbers = range(self.study.shards)
        return [f"{folder}/shard-{number:05d}.{suffix}" for number in numbers]

    @staticmethod
    def ends_of_logs(failed: Iterable[Any]) -> str:
        """What to read where jobs failed: the last lines of the log of each.

        Args:
            failed: jobs, or groups of them, as Snakemake has them.
        """
        jobs = [job for each in failed for job in (getattr(each, "jobs", None) or [each])]
        lines = []
        for job in sorted(jobs, key=lambda job: str(job.log)):
            for log in map(str, job.log):
                text = Path(log).read_text(errors="replace") if os.path.exists(log) else ""
                end = text.strip().splitlines()[-LINES_OF_A_LOG:]
                lines += [
                    f"\n{job.rule.name} failed; {log} ends:"
                    if end
                    else f"\n{job.rule.name} failed with nothing in {log}; what killed it or "
                    f"kept it from starting stands above, under 'Error in rule {job.rule.name}'",
                    *(f"    {line}" for line in end),
                ]
        return "\n".join(lines)

    def claim(self) -> None:
        """Hold the study for as long as this object lives, for the case that a link makes one
        folder of results of two: Snakemake's own lock is that of the folder that it works in. Then
        declare its settings to all jobs, also to those of an earlier Snakemake that was killed.

        Raises:
            WorkflowError: another process holds it, something else lies in the place of one of
                its folders, or nothing can be written there.
        """
        folder = f"results/{self.study.study}"
        self._refuse_what_is_no_folder()
        try:
            os.makedirs(folder, exist_ok=True)
            self._held = open(f"{folder}/.claim", "a")  # noqa: SIM115 - while this process lives
        except OSError as error:
            raise WorkflowError(
                f"{os.path.realpath(folder)}: cannot be written ({error.strerror}); make it "
                "writable, or work elsewhere with --directory"
            ) from None
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            place = os.path.realpath(folder)
            raise WorkflowError(
                f"{place}: another Snakemake works on this study; wait until it has ended"
            ) from None
        except OSError:
            pass  # a file system without locks
        declare(Path(self.declared), settings_digests(self.study))

    def _refuse_what_is_no_folder(self) -> None:
        """Snakemake itself would end in a traceback when it makes room for what a job writes."""
        patterns = {*self.results, *chain.from_iterable(self.targets.values())}
        files = [Path(file) for file in self.files(*patterns)]
        between = [Path("results", self.study.study, name) for name in BETWEEN]
        for folder in sorted({*between, *(folder for file in files for folder in file.parents)}):
            if os.path.lexists(folder) and not folder.is_dir():
                raise WorkflowError(
                    f"{folder}: is no folder, and the study has files in it; move away what lies "
                    "there and start again"
                )


def leave(error: SaeflowError) -> NoReturn:
    """End Snakemake with what is wrong, and no place in a program that the user did not write.

    Raises:
        SystemExit: always; for any other exception Snakemake says where it was raised.
    """
    print(error, file=sys.stderr, flush=True)
    raise SystemExit(1) from None


def or_leave(function: Param) -> Param:
    """An input function that ends Snakemake with the sentence alone where something is wrong."""

    def of(wildcards: Any) -> Any:
        try:
            return function(wildcards)
        except SaeflowError as error:
            leave(error)

    return of


def digest(sections: Iterable[Section]) -> str:
    """The SHA-256 of what sections say."""
    lines = [section.model_dump_json() for section in sections]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def given(value: Any) -> Param:
    """A param that is what it is, whatever braces it holds."""
    return lambda wildcards: value


def repeated(option: str, values: Iterable[Any]) -> list[Any]:
    """The words that give an option once for each value."""
    return [word for value in values for word in (option, value)]


def _given(said: Given) -> list[str]:
    """What a study says of an SAE where its files do not, as the command's options."""
    bias = said.apply_b_dec_to_input
    options = [] if bias is None else [f"--{'' if bias else 'no-'}apply-b-dec-to-input"]
    for name in ("k", "scale", "threshold", "normalize_activations"):
        value = getattr(said, name)
        options += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return options


def one_of(names: Iterable[str]) -> str:
    """A wildcard constraint: any of `names`, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"
