"""Which files a corpus is made of, and what share of it they have."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from os.path import abspath
from pathlib import Path
from typing import NamedTuple

from saeflow.config.sections import Corpus
from saeflow.config.text_files import KINDS_IN_WORDS, kind_of, texts_among
from saeflow.errors import SaeflowError


class Share(NamedTuple):
    """Files that have a share of a corpus together.

    Attributes:
        pattern: of their names, the key in ``corpus.weights``; None where none are given.
        weight: of their tokens among those of all.
        files: as the config lists them, those of a folder in the order of their names.
    """

    pattern: str | None
    weight: float
    files: list[Path]


def shares(corpus: Corpus) -> list[Share]:
    """The files of a corpus, by the share that they have of it.

    Raises:
        SaeflowError: there are none, or weights are given that do not fit their names.
    """
    files = [pair for path in corpus.paths for pair in _files_of(Path(path), corpus)]
    if twice := [
        file for file, times in Counter(abspath(each) for _, each in files).items() if times > 1
    ]:
        raise SaeflowError(
            f"corpus.path: '{twice[0]}' stands in two of the paths {', '.join(corpus.paths)}; name "
            "it once"
        )
    if not corpus.weights:
        return [Share(None, 1.0, [file for _, file in files])]
    chosen: dict[str, list[Path]] = {pattern: [] for pattern in corpus.weights}
    for name, file in files:
        pattern = next((each for each in chosen if fnmatchcase(name, each)), None)
        if pattern is None:
            raise SaeflowError(
                f"corpus.weights: no pattern matches '{name}' ({file}); give it a weight, which is "
                "0 for what is left out"
            )
        chosen[pattern].append(file)
    if empty := [pattern for pattern, held in chosen.items() if not held]:
        raise SaeflowError(
            f"corpus.weights: '{empty[0]}' matches no file of {' and '.join(corpus.paths)} that no "
            f"pattern before it does; there are {', '.join([name for name, _ in files][:4])}"
        )
    return [
        Share(pattern, weight, chosen[pattern])
        for pattern, weight in corpus.weights.items()
        if weight
    ]


def _files_of(path: Path, corpus: Corpus) -> list[tuple[str, Path]]:
    """The files of one path of a corpus, each with the name that patterns are held against: from
    the folder on that the config names; where it names several, with the folder's own name."""
    if not path.is_dir():
        if not kind_of(path.name):
            raise SaeflowError(
                f"corpus.path: '{path}' is not one of {KINDS_IN_WORDS}; convert it or name another "
                "file"
            )
        return [(path.name, path)]
    names = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    files = [(name, names[name]) for name in texts_among(names)]
    if not files:
        raise SaeflowError(
            f"corpus.path: '{path}' holds no file of text, {KINDS_IN_WORDS}; name another folder"
        )
    if len(corpus.paths) == 1:
        return files
    return [(f"{path.name}/{name}", file) for name, file in files]
