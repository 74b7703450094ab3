"""What the commands share: settings from JSON, threads, devices, progress."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import typer
from pydantic import ValidationError

from saeflow import provenance
from saeflow.config import Section
from saeflow.config.reading import complaints
from saeflow.config.sae_files import SAE_FORMATS
from saeflow.errors import SaeflowError
from saeflow.terminal import printable

if TYPE_CHECKING:
    from saeflow.activations.io import ActivationStore
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE

S = TypeVar("S", bound=Section)
V = TypeVar("V")
HEARTBEAT_SECONDS = 10.0
# Each also takes @FILE.
JSON_OPTIONS = (
    *("--settings", "--study", "--saes", "--shape", "--accuracy", "--summary", "--calls"),
    *("--prompting", "--facts", "--directions", "--activations"),
    *("--sets", "--sources", "--regimes"),
    *("--asked", "--behaviour", "--selection", "--measures", "--pools", "--nulls", "--classes"),
    "--cleaning",
    *("--published", "--package", "--dataset", "--vectors", "--projection", "--search"),
    "--adapter",
)


def _recorded(name: str) -> Callable[[V], V]:
    """A callback that has files tell what this option was given."""

    def record(value: V) -> V:
        provenance.tell_option(name, value)
        return value

    return record


Settings = Annotated[
    str,
    typer.Option(
        help="The section of the config that the stage obeys, as JSON, or @FILE that holds it."
    ),
]
Seed = Annotated[int, typer.Option(help="The study's seed.", callback=_recorded("seed"))]
Threads = Annotated[int, typer.Option(help="Threads of torch, BLAS, Polars and Arrow.")]
Output = Annotated[Path, typer.Option(help="Where the result is written.")]
Checksums = Annotated[
    Path | None,
    typer.Option(
        help="Where the checksums of the folder's files are written again, for jobs to depend on."
    ),
]
Checkpoint = Annotated[Path, typer.Option(help="Where the state of an unfinished run is kept.")]
PartsFolder = Annotated[
    Path | None,
    typer.Option("--parts", help="Where finished parts are kept, to be taken the next time."),
]
Configs = Annotated[list[Path], typer.Argument(help="Config files, later ones over earlier ones.")]
Metrics = Annotated[Path, typer.Option(help="Where metrics.json is written.")]
ModelFolder = Annotated[Path, typer.Option("--model", help="Folder of the model.")]
SAEFolder = Annotated[Path, typer.Option("--sae", help="Folder of the SAE.")]
Corpus = Annotated[Path, typer.Option(help="Token blocks of a split of the corpus.")]
Baseline = Annotated[Path, typer.Option(help="baseline.safetensors")]
Approximator = Annotated[Path, typer.Option(help="approximator.safetensors")]
Manifest = Annotated[Path, typer.Option(help="manifest.json of the activation cache.")]
HookName = Annotated[
    str, typer.Option("--hook", help="TransformerLens name: blocks.2.hook_resid_post.")
]
HookNames = Annotated[
    list[str], typer.Option("--hook", help="As above; may be given several times.")
]
ReadHook = Annotated[
    str | None,
    typer.Option(
        "--hook", help="Where it will be read; must be where it was trained, if it says that."
    ),
]
WrittenHook = Annotated[
    str | None, typer.Option("--target", help="Transcoder: the hook that it writes.")
]
SAEFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Its format: {', '.join(SAE_FORMATS)}; auto tells it from the files' names.",
    ),
]
Centred = Annotated[
    bool, typer.Option("--centred", help="The SAE was trained on activations less their mean.")
]
GivenK = Annotated[
    int | None, typer.Option("--k", help="Latents that TopK keeps, where its files do not say.")
]
GivenScale = Annotated[
    float | None,
    typer.Option("--scale", help="What its input was multiplied by, where its files do not say."),
]
GivenThreshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Of BatchTopK or JumpReLU, where its files do not say."),
]
GivenBias = Annotated[
    bool | None,
    typer.Option(
        "--apply-b-dec-to-input/--no-apply-b-dec-to-input",
        help="Whether the decoder's bias is subtracted from the input, where its files do not say.",
    ),
]
GivenNormalisation = Annotated[
    str | None,
    typer.Option(
        "--normalize-activations",
        help="How each token's activation is normalised, where its files do not say: layer_norm "
        "or constant_norm_rescale.",
    ),
]
Calls = Annotated[str, typer.Option("--calls", help="The section 'calls' of the config, as JSON.")]
LedgerFile = Annotated[
    Path, typer.Option(help="ledger.sqlite of the study, for the judge 'openai'.")
]
Decode = Annotated[
    Literal["eager", "recorded"],
    typer.Option(
        help="How a decode step is run: as Python calls it, or recorded once as a CUDA graph and "
        "replayed, for GPUs that wait for Python."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the model's weights: float32, bfloat16 or float16.", callback=_recorded("dtype")
    ),
]


def with_files_read(arguments: Sequence[str]) -> list[str]:
    """The command line with the text of the file in place of every `@FILE` that an option of JSON
    is given.

    One argument holds no more than 128 KiB, which many prompts or a wide sweep exceed.

    Raises:
        SaeflowError: a file cannot be read.
    """
    options = ["", *arguments]
    return [
        _text(option, value) if option in JSON_OPTIONS and value.startswith("@") else value
        for option, value in zip(options, arguments, strict=False)
    ]


def _text(option: str, value: str) -> str:
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SaeflowError(
            f"{option}: {value[1:]} cannot be read ({error}); give JSON or @FILE"
        ) from None


def parsed(section: type[S], text: str, name: str = "") -> S:
    """The settings object of a stage from its JSON, which files tell from now on.

    Args:
        section: the class.
        text: the JSON.
        name: of what it is about, where a command is given several.

    Raises:
        SaeflowError: a key is unknown, missing or wrong.
    """
    settings = parsed_in_silence(section, text)
    provenance.tell_settings(section.__name__, json.loads(text), name)
    return settings


def parsed_in_silence(section: type[S], text: str) -> S:
    """As `parsed`, for settings that say how something is done and change no result."""
    try:
        return section.model_validate_json(text)
    except ValidationError as error:
        raise SaeflowError("\n".join(f"--settings: {line}" for line in complaints(error))) from None


def parsed_facts(text: str, option: str = "--facts") -> dict[str, Any]:
    """What is told of a config by name, from a JSON mapping.

    Args:
        text: the JSON.
        option: that gives it.

    Raises:
        SaeflowError: it is none.
    """
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        raise SaeflowError(f"{option}: is no JSON mapping from names to values; give one") from None


def parsed_by_name(section: type[S], text: str) -> dict[str, S]:
    """The settings objects of several things of one kind, from a JSON mapping.

    Raises:
        SaeflowError: it is no mapping, or a key of one is unknown, missing or wrong.
    """
    try:
        named = dict(json.loads(text))
    except ValueError:
        raise SaeflowError(
            "--settings: is no JSON mapping from names to settings; give one"
        ) from None
    return {name: parsed(section, json.dumps(values), name) for name, values in named.items()}


def named_files(named: Sequence[str] | None) -> dict[str, Path]:
    """Files by name, of an option that is given as NAME=FILE.

    Raises:
        SaeflowError: one has no name.
    """
    return {name: Path(path) for name, path in named_values(named, "FILE").items()}


def named_values(named: Sequence[str] | None, what: str = "HOOK") -> dict[str, str]:
    """What an option gives by name, as NAME=VALUE.

    Args:
        named: as they are given.
        what: a value is called in messages.

    Raises:
        SaeflowError: one has no name.
    """
    pairs = [each.partition("=") for each in named or ()]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise SaeflowError(f"'{wrong[0]}' is no NAME={what}")
    return {name: value for name, _, value in pairs}


def set_pools(threads: int) -> None:
    """Give BLAS, Polars and Arrow exactly this many threads; call it before the first of them is
    imported."""
    for variable in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "POLARS_MAX_THREADS",
        "ARROW_IO_THREADS",
    ):
        os.environ[variable] = str(threads)
    # Threads that spin for work starve the jobs beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def use_threads(threads: int) -> None:
    """Give torch exactly this many threads, too.

    Two jobs with two threads each on two cores run several times slower than with one thread each.
    """
    set_pools(threads)
    import torch

    torch.set_num_threads(threads)


def use_device(threads: int, count: int = 1) -> None:
    """Lease accelerators for this process, where the machine has some, and then as
    `use_threads`."""
    from saeflow.devices import lease

    lease(count)
    use_threads(threads)


def say(text: str, err: bool = False) -> None:
    """Print a line that may hold texts of strangers."""
    typer.echo(printable(text), err=err)


def repeat_checksums(folder: Path, checksums: Path | None) -> None:
    """Write the checksums of a folder that was written whole beside it, too, if anybody asks for
    them."""
    from saeflow.artifacts import CHECKSUMS, atomic

    if checksums:
        with atomic(checksums) as temporary:
            temporary.write_bytes((folder / CHECKSUMS).read_bytes())


def all_files(paths: list[Path]) -> list[Path]:
    """The files among the paths, and those in the folders among them."""
    return [
        file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]


def accelerator() -> str:
    """What the machine computes fastest on: an accelerator, or the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device() -> str:
    """Where this process computes: on the accelerator that `use_device` leased, or on the CPU."""
    from saeflow.devices import granted

    return accelerator() if granted() else "cpu"


def open_model(folder: Path, dtype: str = "float32") -> LanguageModel:
    """The language model in a folder of the study, on this process's device."""
    from saeflow.models.language_model import load_model

    return load_model(folder, device=device(), dtype=dtype)


def open_sae(folder: Path) -> SAE:
    """The SAE in a folder of the study, on this process's device."""
    from saeflow.saes.io import load_sae

    return load_sae(folder).to(device())


def open_store(manifest: Path) -> ActivationStore:
    """The activation cache that a manifest describes."""
    from saeflow.activations.io import ActivationStore

    return ActivationStore.open(manifest.parent)


class Progress(Protocol):
    """Reports how far a long loop is, and what else there is to tell of it."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def progress(what: str) -> Progress:
    """A reporter for long loops: a bar on a terminal, elsewhere a line in the log every ten
    seconds.

    What was done before the first report, such as by a run that was interrupted, counts in no rate.
    """
    if sys.stderr.isatty():
        return _bar(what)
    start = last = time.monotonic()
    before: tuple[int, float] | None = None

    def beat(done: int, total: int, note: str = "") -> None:
        nonlocal last, before
        now = time.monotonic()
        before = before or (done, now)
        if done < total and now - last < HEARTBEAT_SECONDS:
            return
        last = now
        made, since = (done - before[0], before[1]) if done > before[0] else (done, start)
        rate = made / max(now - since, 1e-9)
        left = (total - done) / rate if rate else 0.0
        line = f"{what}: {done} / {total}, {rate:.1f} per second, {left:.0f} s left"
        print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)

    return beat


def _bar(what: str) -> Progress:
    from tqdm import tqdm

    bar = tqdm(desc=what, leave=True)

    def move(done: int, total: int, note: str = "") -> None:
        if not bar.n:
            bar.initial = bar.n = done
        bar.total = total
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)

    return move
