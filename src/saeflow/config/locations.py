"""Where an artifact of a study lies: our own below ``results/``, or the published one below
``resources/published/``.

The two never share a file, so neither a download nor a rerun can overwrite the other. Another
source is another folder, named by repository, revision and a digest of what else the config says of
it: the workflow sees by the path alone that an input is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from saeflow.config.any_study import AnyStudy
from saeflow.config.sections import Published, Study
from saeflow.config.sections.published import Source

PUBLISHED = "resources/published"
SAE_FILES = ("cfg.json", "sae_weights.safetensors")
CHECKSUMS_OF_FOLDER = ".checksums.json"  # beside a folder: of its files, for jobs to depend on
CHECKOUT = Path(__file__).resolve().parents[3]


class Origin(NamedTuple):
    """Where the config says that an artifact may come from."""

    published: Published | None
    source: Source
    also: str = ""
    """What else decides what becomes of the files, such as an SAE's format."""


def origin(study: AnyStudy, path: str) -> Origin | None:
    """The origin of a file or folder below the study's folder; None for what is never fetched, as
    in a study of another kind than language.

    Args:
        study: the study.
        path: as docs/design.md §6 has it, such as ``effects/main/effects.h5``.
    """
    if not isinstance(study, Study):
        return None
    match PurePosixPath(path).parts:
        case ("models", name) if (
            name := name.removesuffix(CHECKSUMS_OF_FOLDER)
        ) in study.all_models:
            model = study.all_models[name]
            return Origin(model.published, model.source)
        case ("corpus", "text") if study.corpus.dataset:
            return Origin(
                study.corpus.dataset.published, "fetch", " ".join(study.corpus.dataset.files)
            )
        case ("activations", model, hook, _) if model == study.model.name:
            published = study.activations.published
            meant = published and (hook == study.hook or "{hook}" in (published.file or ""))
            return Origin(published if meant else None, study.activations.source)
        case ("saes", name, file) if name in study.saes and file in SAE_FILES:
            sae = study.saes[name]
            place = f" {study.hook_of(name)} {sae.target}" if sae.target else ""
            return Origin(
                sae.published, sae.source, f"{sae.format}{' centred' * sae.centred}{place}"
            )
        case ("effects", name, "effects.h5") if name == study.steering_sae:
            return Origin(study.effects.published, study.effects.source)
        case ("approximators", name, "approximator.safetensors") if name == study.steering_sae:
            return Origin(study.approximator.published, study.approximator.source)
        case ("steering", _, _, "vector.safetensors"):
            return Origin(study.steering.published, study.steering.source)
    return None


def fetched(study: AnyStudy, path: str, exists: Callable[[str], bool]) -> bool:
    """Whether an artifact is fetched rather than our own.

    Args:
        study: the study.
        path: as for `origin`.
        exists: tells whether a path is on disk.
    """
    found = origin(study, path)
    if not found or not found.published or found.source == "compute":
        return False
    return found.source == "fetch" or not exists(
        _own(study, path.removesuffix(CHECKSUMS_OF_FOLDER))
    )


def location(study: AnyStudy, path: str, exists: Callable[[str], bool]) -> str:
    """Where an artifact lies, or will.

    Args:
        study: the study.
        path: as for `origin`.
        exists: tells whether a path is on disk.
    """
    found = origin(study, path)
    if found and found.published and fetched(study, path, exists):
        return f"{PUBLISHED}/{found.published.folder(found.also)}/{path}"
    return _own(study, path)


def goal_file(study: Study, goal: str) -> Path:
    """The file that describes a goal: below `goals.directory` of the working directory where that
    is there, else of the checkout that this package lies in. The workflow seeks goals and token
    sets in the same order."""
    folder = Path(study.goals.directory)
    return (folder if folder.exists() else CHECKOUT / folder) / f"{goal}.yaml"


def token_set_file(name: str) -> Path:
    """A file of token sets, sought as the goals' folder is."""
    return Path(name) if Path(name).exists() else CHECKOUT / name


def fetches(study: Study, root: Path) -> dict[str, Published]:
    """What a study would fetch, by the key of its section.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    sae, goal = study.steering_sae, study.goals.names[0]
    asked = {
        **{study.key_of(name): f"models/{name}" for name in study.all_models},
        "corpus.dataset": "corpus/text",
        "activations": f"activations/{study.model.name}/{study.hook}/manifest.json",
        **{f"saes.{name}": f"saes/{name}/{SAE_FILES[1]}" for name in study.saes},
        "effects": f"effects/{sae}/effects.h5",
        "approximator": f"approximators/{sae}/approximator.safetensors",
        "steering": f"steering/{goal}/{study.steering.methods[0]}/vector.safetensors",
    }
    found = {key: origin(study, path) for key, path in asked.items()}
    here = {
        key
        for key, path in asked.items()
        if fetched(study, path, lambda file: (root / file).exists())
    }
    return {
        key: one.published for key, one in found.items() if key in here and one and one.published
    }


def _own(study: AnyStudy, path: str) -> str:
    return f"results/{study.study}/{path}"
