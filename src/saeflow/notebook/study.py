"""A finished study, or one that is running: its tables, figures, models and SAEs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import polars as pl

from saeflow import options
from saeflow.artifacts import read_json
from saeflow.config.locations import location
from saeflow.errors import SaeflowError
from saeflow.kinds import AnyKind, read_any_study
from saeflow.tables import read_table

if TYPE_CHECKING:
    from saeflow.activations.io import ActivationStore
    from saeflow.analyses.effects.approximation import Approximation
    from saeflow.analyses.steering.io import SteeringVector
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.crosscoder import Crosscoder
    from saeflow.saes.sae import SAE

T = TypeVar("T")
CONFIG = "config.yaml"
NEAREST = 5  # names that are told where one is wrong
# Of what fires where and of single blocks of vectors there are many files, read by their commands.
_IN_PARTS = ("activations", "shards", "checkpoints")


class NoResultError(SaeflowError, KeyError):
    """A study has no result of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Results(Mapping[str, T], Generic[T]):
    """Results of one kind by their names; each is read when it is asked for.

    ``list(results)`` has the names, and so has the completion of ``results["``.
    """

    def __init__(self, kind: str, files: Mapping[str, Path], read: Callable[[Path], T]) -> None:
        """Know the files.

        Args:
            kind: what they are, in the plural.
            files: by name.
            read: reads one.
        """
        self._kind, self._files, self._read = kind, dict(sorted(files.items())), read

    def __getitem__(self, name: str) -> T:
        if name not in self._files:
            near = get_close_matches(str(name), self._files, NEAREST, cutoff=0.3)
            names = ", ".join(near or list(self)[:NEAREST]) or "none"
            raise NoResultError(
                f"study: has no '{name}' among its {len(self)} {self._kind}; there are {names}"
            )
        return self._read(self._files[name])

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"{self._kind}: {', '.join(self) or 'none'}"

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of a study; a notebook shows it."""

    png: Path

    @property
    def svg(self) -> Path:
        """The same without pixels."""
        return self.png.with_suffix(".svg")

    @property
    def table(self) -> pl.DataFrame:
        """The rows that it is drawn from."""
        return pl.read_csv(self.png.with_suffix(".csv"))

    def _repr_png_(self) -> bytes:
        return self.png.read_bytes()


@dataclass(frozen=True)
class OpenStudy:
    """A study's folder. What is there is looked up each time, so one that is running may grow."""

    folder: Path

    @cached_property
    def config(self) -> AnyKind:
        """The config with every default filled in.

        Raises:
            SaeflowError: it is absent, or of another version of saeflow.
        """
        return read_any_study(self.folder / CONFIG)

    @property
    def tables(self) -> Results[pl.DataFrame]:
        """Every table, by its path without its ending: ``steering/summary``."""
        files = {
            path.with_suffix(""): self.folder / path
            for path in self._glob("**/*.parquet")
            if not set(path.parts[:-1]) & set(_IN_PARTS)
        }
        named = {name.as_posix(): file for name, file in files.items()}
        return Results("tables", named, read_table)

    @property
    def metrics(self) -> Results[dict[str, Any]]:
        """Every file of numbers, by its path without its ending: ``saes/main/metrics``."""
        files = self._glob("**/*metrics.json")
        named = {path.with_suffix("").as_posix(): self.folder / path for path in files}
        return Results("files of metrics", named, read_json)

    @property
    def figures(self) -> Results[DrawnFigure]:
        """Every figure, by its name."""
        named = {path.stem: self.folder / path for path in self._glob("figures/*.png")}
        return Results("figures", named, DrawnFigure)

    @property
    def models(self) -> Results[LanguageModel]:
        """Every language model, loaded when it is asked for."""

        def load(folder: Path) -> LanguageModel:
            from saeflow.models.language_model import load_model

            return load_model(folder, options.accelerator())

        folders = {path.name: self.folder / path for path in self._glob("models/*/")}
        return Results("models", folders | self._fetched("models", "all_models", ""), load)

    @property
    def saes(self) -> Results[SAE]:
        """Every SAE and transcoder, by its name."""

        def load(file: Path) -> SAE:
            from saeflow.saes.io import load_sae

            return load_sae(file.parent)

        dictionaries = self._dictionaries(crosscoders=False)
        return Results("SAEs", dictionaries | self._fetched("saes", "saes", "/cfg.json"), load)

    @property
    def crosscoders(self) -> Results[Crosscoder]:
        """Every crosscoder, by its name."""

        def load(file: Path) -> Crosscoder:
            from saeflow.saes.io import load_crosscoder

            return load_crosscoder(file.parent)

        return Results("crosscoders", self._dictionaries(crosscoders=True), load)

    @property
    def vectors(self) -> Results[SteeringVector]:
        """Every steering vector, as ``goal/method``."""

        def load(file: Path) -> SteeringVector:
            from saeflow.analyses.steering.io import load_vector

            return load_vector(file)

        files = self._glob("steering/*/*/vector.safetensors")
        named = {"/".join(path.parts[1:3]): self.folder / path for path in files}
        return Results("steering vectors", named, load)

    @property
    def approximators(self) -> Results[Approximation]:
        """Every approximator of effects, by its SAE."""

        def load(file: Path) -> Approximation:
            from saeflow.analyses.effects.io import load_approximation

            return load_approximation(file.parent)

        files = self._glob("effects/*/approximator.safetensors")
        named = {path.parent.name: self.folder / path for path in files}
        return Results("approximators", named, load)

    @property
    def activations(self) -> Results[ActivationStore]:
        """Every cache of activations, as ``model/hook``; `mean_norm` is the unit of scales."""

        def load(file: Path) -> ActivationStore:
            from saeflow.activations.io import ActivationStore

            return ActivationStore.open(file.parent)

        files = self._glob("activations/*/*/manifest.json")
        named = {"/".join(path.parts[1:3]): self.folder / path for path in files}
        return Results("caches", named, load)

    def __repr__(self) -> str:
        kinds = (self.tables, self.figures, self.models, self.saes, self.vectors)
        counted = (f"{kind._kind}: {len(kind)}" for kind in kinds)
        return f"study {self.folder.name}; {', '.join(counted)}"

    def _glob(self, pattern: str) -> list[Path]:
        """Paths below the folder."""
        return [path.relative_to(self.folder) for path in self.folder.glob(pattern)]

    def _dictionaries(self, crosscoders: bool) -> dict[str, Path]:
        from saeflow.saes.formats.crosscoder import is_crosscoder

        files = [self.folder / path for path in self._glob("saes/*/cfg.json")]
        return {
            path.parent.name: path for path in files if is_crosscoder(path.parent) is crosscoders
        }

    def _fetched(self, kind: str, names: str, file: str) -> dict[str, Path]:
        """Where fetched artifacts of a kind lie, which is outside the study's folder.

        Args:
            kind: their folder.
            names: of the property of the config that names them.
            file: of each, behind its name.
        """
        try:
            study = self.config
        except SaeflowError:  # which `config` tells whoever asks for it; what lies here is shown
            return {}
        base = self.folder.resolve().parents[1]

        def exists(path: str) -> bool:
            return (base / path).exists()

        places = {
            name: base / location(study, f"{kind}/{name}{file}", exists)
            for name in getattr(study, names, ())
        }
        own = self.folder.resolve()
        return {
            name: path for name, path in places.items() if path.exists() and own not in path.parents
        }


def open_study(folder: str | Path) -> OpenStudy:
    """Open the results of a study.

    Args:
        folder: ``results/<study>``.

    Returns:
        Its ``config``, and by name its ``tables`` as Polars frames, ``metrics``, ``figures``,
        ``models``, ``saes``, ``crosscoders``, steering ``vectors``, ``approximators`` and caches
        of ``activations``. ``study.tables["`` completes to the names.

    Raises:
        SaeflowError: there is no such folder, or it holds no study.

    Examples:
        >>> import saeflow as sf
        >>> study = sf.open_study("results/small")
        >>> list(study.tables)
        ['saes/summary']
        >>> study.tables["saes/summary"].columns
        ['sae', 'l0']
        >>> study.saes
        SAEs: tiny
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SaeflowError(f"{folder}: no such folder; name a study's, such as results/tales")
    if not any((folder / name).exists() for name in (CONFIG, "saes", "models", "corpus")):
        raise SaeflowError(
            f"{folder}: holds no study; name a study's folder, such as results/tales"
        )
    return OpenStudy(folder)
