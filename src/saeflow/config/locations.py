"""Where an artifact of a study lies: our own below ``results/``, or the published one below
``resources/published/``.

The two never share a file, so neither a download nor a rerun can overwrite the other. Another
source is another folder, named by repository, revision and a digest of what else the config says of
it: the workflow sees by the path alone that an input is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from string import Formatter

from saeflow.config.any_study import AnyStudy
from saeflow.config.face import Origin
from saeflow.config.sections import Core, Fetchable

PUBLISHED = "resources/published"
SAE_FILES = ("cfg.json", "sae_weights.safetensors")
CHECKSUMS_OF_FOLDER = ".checksums.json"  # beside a folder: of its files, for jobs to depend on


def origin(study: AnyStudy, path: str) -> Origin | None:
    """The origin of a file or folder below the study's folder; None for what is never fetched, as
    in a study of another kind than language.

    Args:
        study: the study.
        path: as docs/design.md §6 has it, such as ``effects/main/effects.h5``.
    """
    if not isinstance(study, Core):
        return None
    match PurePosixPath(path).parts:
        case ("models", name) if (
            name := name.removesuffix(CHECKSUMS_OF_FOLDER)
        ) in study.all_models:
            model = study.all_models[name]
            return Origin(model.fetchable, model.source)
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
            said = "".join(
                f" {key} {value}" for key, value in sae.given._asdict().items() if value is not None
            )
            return Origin(
                sae.published, sae.source, f"{sae.format}{' centred' * sae.centred}{place}{said}"
            )
        case parts:
            offered = (analysis.origin(study, own, parts) for analysis, own in study.asked)
            return next(filter(None, offered), None)


def fetched(study: AnyStudy, path: str, exists: Callable[[str], bool]) -> bool:
    """Whether an artifact is fetched rather than our own.

    Args:
        study: the study.
        path: as for `origin`.
        exists: tells whether a path is on disk.
    """
    declared = origin(study, path)
    if not declared or not declared.published or declared.source == "compute":
        return False
    return declared.source == "fetch" or not exists(
        _own(study, path.removesuffix(CHECKSUMS_OF_FOLDER))
    )


def location(study: AnyStudy, path: str, exists: Callable[[str], bool]) -> str:
    """Where an artifact lies, or will.

    Args:
        study: the study.
        path: as for `origin`.
        exists: tells whether a path is on disk.
    """
    declared = origin(study, path)
    if declared and declared.published and fetched(study, path, exists):
        return f"{PUBLISHED}/{declared.published.folder(declared.also)}/{path}"
    return _own(study, path)


def place_in(study: AnyStudy, folder: Path, path: str) -> Path:
    """Where a file lies of a study whose results are in a folder, whatever that is called by now:
    there, or among the published ones that were fetched.

    Args:
        study: the study.
        folder: of its results, two levels below what ``resources`` lies in.
        path: as for `origin`.
    """
    top = folder.parent.parent

    def exists(file: str) -> bool:
        return (top / file).exists()

    return top / location(study, path, exists) if fetched(study, path, exists) else folder / path


def filled(pattern: str, names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A pattern of paths with its names in braces filled in each way."""
    fields = dict.fromkeys(name for _, name, _, _ in Formatter().parse(pattern) if name)
    for values in product(*(names[name] for name in fields)):
        yield pattern.format(**dict(zip(fields, values, strict=True)))


def fetches(study: Core, root: Path) -> dict[str, Fetchable]:
    """What a study would fetch, by the key of its section.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    asked = {
        **{study.key_of(name): f"models/{name}" for name in study.all_models},
        "corpus.dataset": "corpus/text",
        "activations": f"activations/{study.model.name}/{study.hook}/manifest.json",
        **{f"saes.{name}": f"saes/{name}/{SAE_FILES[1]}" for name in study.saes},
        **{
            key: path.format(**_firsts(analysis.names(study, own)))
            for analysis, own in study.asked
            for key, path in analysis.fetched(study, own).items()
        },
    }
    origins = {key: origin(study, path) for key, path in asked.items()}
    here = {
        key
        for key, path in asked.items()
        if fetched(study, path, lambda file: (root / file).exists())
    }
    return {
        key: place.published
        for key, place in origins.items()
        if key in here and place and place.published
    }


def _firsts(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: values[0] for name, values in names.items() if values}


def _own(study: AnyStudy, path: str) -> str:
    return f"results/{study.study}/{path}"
