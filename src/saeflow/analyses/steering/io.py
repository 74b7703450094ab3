"""Files of the stage: target latents, vectors, completions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saeflow import seals
from saeflow.analyses.steering.choice import (
    CANDIDATES_SCHEMA,
    TARGETS_SCHEMA,
    LatentChoice,
    LatentChoices,
)
from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
from saeflow.artifacts import read_json, sealed, write_sealed_json
from saeflow.errors import DamagedError, SaeflowError
from saeflow.hub.files import RECORD, fetch
from saeflow.provenance import provenance
from saeflow.seals import stamp
from saeflow.tables import read_table, write_table
from saeflow.tensors import metadata_of

if TYPE_CHECKING:
    from saeflow.config.sections import Published


class SteeringVector(NamedTuple):
    """A vector and where it comes from."""

    vector: Float[Tensor, " d_model"]
    """Unit norm, float32."""
    metadata: dict[str, Any]
    """``hook``, ``goal``, ``method``, ``targets``, ``norm``."""

    @classmethod
    def towards(
        cls,
        targets: Mapping[int, float],
        vector: Float[Tensor, " d_model"],
        *,
        hook: str,
        goal: str,
        method: str,
        norm: float,
    ) -> SteeringVector:
        """A vector that was built here, and the weights of the latents that it aims at."""
        weights = {str(latent): weight for latent, weight in targets.items()}
        metadata = {"hook": hook, "goal": goal, "method": method, "targets": weights, "norm": norm}
        return cls(vector, metadata)

    @property
    def norm(self) -> float:
        """What multiplies every scale; see `saeflow.analyses.steering.vectors.Built`."""
        return float(self.metadata.get("norm", 1.0))

    @property
    def hook(self) -> str:
        """Where it is added.

        Raises:
            SaeflowError: it does not say.
        """
        hook = self.metadata.get("hook")
        if not isinstance(hook, str):
            raise SaeflowError(
                "steering: the vector does not say at which hook it is added; write it with `hook`"
            )
        return hook

    @property
    def goal(self) -> str:
        """The goal that it is for; empty where it does not say."""
        return str(self.metadata.get("goal", ""))

    @property
    def method(self) -> str:
        """The method that it was built by; empty where it does not say."""
        return str(self.metadata.get("method", ""))

    def of_width(self, d_model: int) -> Float[Tensor, " d_model"]:
        """The vector, for a model of this width.

        Raises:
            SaeflowError: it has another width.
        """
        if len(self.vector) != d_model:
            raise SaeflowError(
                f"steering: the vector has {len(self.vector)} numbers, and the model's width is "
                f"{d_model}; take a vector of this model"
            )
        return self.vector


class Contrast(NamedTuple):
    """What the methods need of a goal's examples: activations, one row per text, pooled in both
    ways that `caa` knows, and latents."""

    positive_mean: Float[Tensor, "texts d_model"]
    positive_last: Float[Tensor, "texts d_model"]
    negative_mean: Float[Tensor, "texts d_model"]
    negative_last: Float[Tensor, "texts d_model"]
    difference: Float[Tensor, " d_sae"]
    """Mean activation of every latent on the texts that show the behaviour minus that on those that
    do not; float64."""
    from_bos: Bool[Tensor, " d_sae"]
    """Latents that belong to BOS; see `saeflow.analyses.steering.examples.bos_latents`."""


def save_vector(path: Path, vector: SteeringVector) -> None:
    """Write ``vector.safetensors``."""
    with sealed(path) as temporary:
        metadata = {"metadata": json.dumps(vector.metadata, sort_keys=True), **stamp()}
        save_file({"vector": vector.vector.cpu().contiguous()}, temporary, metadata=metadata)


def load_vector(path: Path) -> SteeringVector:
    """Read ``vector.safetensors``.

    Raises:
        SaeflowError: the file is absent, broken, or its vector cannot steer.
    """
    if not Path(path).exists():
        raise SaeflowError(f"{path}: no such steering vector; build it first")
    try:
        seals.check(path)
        with safe_open(path, framework="pt") as file:
            vector = file.get_tensor("vector")
            metadata = metadata_of(file, path) if "metadata" in (file.metadata() or {}) else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(
            f"{path}: is no whole steering vector ({str(error).splitlines()[0]})", [path]
        ) from None
    usable = (
        vector.ndim == 1
        and vector.is_floating_point()
        and vector.float().isfinite().all()
        and vector.any()
    )
    if not usable:
        raise SaeflowError(
            f"{path}: 'vector' must be one row of finite numbers, not all zero; make it anew"
        )
    norm = metadata.get("norm", 1.0)
    if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise SaeflowError(
            f"{path}: its norm is {str(norm)[:40]!r} and must be a positive number; make it anew"
        )
    return SteeringVector(vector.float(), metadata)


def load_vectors(paths: Sequence[Path]) -> list[SteeringVector]:
    """Read the vectors of one goal, each in a folder called as its method.

    Raises:
        SaeflowError: as `load_vector`; or a vector is by another method than its folder says, or
            for another goal than most.
    """
    vectors = [load_vector(path) for path in paths]
    goals = [vector.goal for vector in vectors if vector.goal]
    usual = max(goals, key=goals.count, default="")
    for path, vector in zip(paths, vectors, strict=True):
        method = Path(path).absolute().parent.name
        if vector.method not in ("", method) or vector.goal not in ("", usual):
            raise DamagedError(
                f"{path}: is the vector of goal {vector.goal!r} by {vector.method!r}, in the place "
                f"of that of {usual!r} by {method!r}",
                [path],
            )
    return vectors


def read_steered(completions: Path, vector: Path) -> tuple[pl.DataFrame, SteeringVector]:
    """Read completions and the vector that they were written with.

    Raises:
        SaeflowError: a file cannot be read, or they were written with another.
    """
    written, loaded = read_table(completions, COMPLETIONS_SCHEMA), load_vector(vector)
    if set(written["method"]) != {loaded.method}:
        raise SaeflowError(f"{vector}: is not the vector that {completions} was written with")
    return written, loaded


def fetch_vectors(
    published: Published, key: str, hook: str, goal: str, methods: Sequence[str], directory: Path
) -> None:
    """Fetch a goal's vectors, with the record of where they came from.

    Args:
        published: a file in whose name ``{goal}`` and ``{method}`` stand for them.
        key: of the config, for messages.
        hook: of the study.
        goal: whose vectors.
        methods: one vector each.
        directory: in which every method has a folder.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or a file holds no vector of this hook.
    """
    records = {}
    for method in methods:
        name = str(published.file).replace("{goal}", goal).replace("{method}", method)
        fetched = fetch(published.model_copy(update={"file": name}), key)
        vector, stated = load_vector(fetched.path)
        if stated.get("hook", hook) != hook:
            raise SaeflowError(
                f"{key}: {name} is a vector of {stated['hook']}, and the study's hook is {hook}"
            )
        metadata = {
            **stated,
            "hook": hook,
            "goal": goal,
            "method": method,
            "published": fetched.origin,
        }
        save_vector(directory / method / "vector.safetensors", SteeringVector(vector, metadata))
        records[method] = fetched.record
    write_sealed_json(directory / RECORD, records)


def save_choices(folder: Path, choices: LatentChoices) -> None:
    """Write ``<goal>/latents.json`` for every goal, and ``targets.parquet`` and ``targets.csv`` of
    all."""
    for goal, choice in choices.by_goal.items():
        save_choice(folder / goal / "latents.json", choice)
    for suffix in ("parquet", "csv"):
        write_table(folder / f"targets.{suffix}", choices.targets, TARGETS_SCHEMA)


def save_choice(path: Path, choice: LatentChoice) -> None:
    """Write ``latents.json``."""
    weights = {str(latent): weight for latent, weight in choice.weights.items()}
    content = {
        "latents": weights,
        "candidates": choice.candidates.to_dicts(),
        "provenance": provenance(),
    }
    write_sealed_json(path, content)


def load_choice(path: Path) -> LatentChoice:
    """Read ``latents.json``.

    Raises:
        SaeflowError: the file is absent or something else.
    """
    content = read_json(path)
    try:
        weights = {int(latent): float(weight) for latent, weight in content["latents"].items()}
        return LatentChoice(weights, pl.DataFrame(content["candidates"], schema=CANDIDATES_SCHEMA))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DamagedError(f"{path}: names no target latents", [path]) from None


def save_contrast(path: Path, contrast: Contrast) -> None:
    """Write ``contrast.safetensors``."""
    tensors = {name: tensor.contiguous() for name, tensor in contrast._asdict().items()}
    with sealed(path) as temporary:
        save_file(tensors, temporary, metadata=stamp())


def load_contrast(path: Path) -> Contrast:
    """Read ``contrast.safetensors``.

    Raises:
        SaeflowError: the file is absent or broken.
    """
    try:
        seals.check(path)
        with safe_open(path, framework="pt") as file:
            return Contrast(**{name: file.get_tensor(name) for name in Contrast._fields})
    except (SafetensorError, OSError) as error:
        raise DamagedError(
            f"{path}: is no whole contrast ({str(error).splitlines()[0]})", [path]
        ) from None
