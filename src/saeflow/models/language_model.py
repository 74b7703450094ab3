"""A language model: a plain `transformers` model that only runs, its tokenizer and its family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import nn

from saeflow.artifacts import CHECKSUMS, inside, read_checksums, read_object, sha256
from saeflow.config.model_files import (
    CONTEXT_NAMES,
    LAYER_NAMES,
    WEIGHTS,
    fault_of_config,
    fault_of_tokenizer,
    fault_of_weights,
    text_section,
)
from saeflow.corpora.tokens import without_bos
from saeflow.errors import DamagedError, SaeflowError
from saeflow.models.adapters import family_of
from saeflow.models.chat import end_ids, with_one_bos
from saeflow.models.families import FAMILIES, Family
from saeflow.products import dtype_on
from saeflow.provenance import refuse_other_settings
from saeflow.seals import refuse_pointer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

POINTER = "model.json"
UNLIMITED = 2**31 - 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, without gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family

    @property
    def decoder(self) -> nn.Module:
        """The model without its unembedding: embeddings, layers, final norm."""
        return self.model.get_submodule(self.family.stack)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        layers = self.model.get_submodule(self.family.layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def n_layers(self) -> int:
        return self.model.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        return self.model.config.hidden_size

    @property
    def d_vocab(self) -> int:
        return self.model.config.vocab_size

    @property
    def context(self) -> int:
        """The most tokens of one forward pass; without a limit where positions are distances
        (ALiBi) and the config names none."""
        limits = (getattr(self.model.config, name, None) for name in CONTEXT_NAMES)
        return next((limit for limit in limits if limit), UNLIMITED)

    @property
    def keeps_states(self) -> bool:
        """Whether some layers remember the text in a state of their own (Mamba, Qwen3-Next), not
        in keys and values."""
        kinds = getattr(self.model.config, "layer_types", None) or []
        return "past_key_values" not in signature(self.model.forward).parameters or any(
            kind == "linear_attention" or not kind.endswith("attention") for kind in kinds
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def bos_id(self) -> int:
        """The token that opens every text: BOS, or what the family uses in its place.

        Raises:
            SaeflowError: neither tokenizer nor config names one.
        """
        return bos_id(self.tokenizer, getattr(self.model.config, "bos_token_id", None))

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a text or a turn; see `saeflow.models.chat.end_ids`."""
        return end_ids(self.tokenizer, self.model.generation_config)

    def tokenize(self, text: str, bos: bool = True) -> list[int]:
        """The tokens of a text, opened with exactly one BOS on request; no other special token is
        added."""
        tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return with_one_bos(tokens, self.bos_id) if bos else without_bos(tokens, self.bos_id)


def bos_id(tokenizer: PreTrainedTokenizerBase, configured: int | None = None) -> int:
    """The token that opens every text: the tokenizer's BOS, else the config's, else the tokenizer's
    EOS.

    Qwen names its BOS only in the config; some GPT-2 relatives have one special token for both
    ends.

    Args:
        tokenizer: of the model.
        configured: ``bos_token_id`` of the model's config.

    Raises:
        SaeflowError: none of the three is named.
    """
    for candidate in (tokenizer.bos_token_id, configured, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise SaeflowError(
        "models: the tokenizer names no token to open a text with; add bos_token to its "
        "tokenizer_config.json"
    )


def load_model(directory: Path, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Load a model from files alone; the network is never asked.

    Args:
        directory: a Hugging Face checkpoint directory, or a directory whose ``model.json`` points
            at one.
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: of the weights: ``float32``, ``bfloat16`` or ``float16``. A processor without
            instructions for 16 bits computes in float32 (`saeflow.products.dtype_on`).

    Raises:
        SaeflowError: a file is missing or broken, the family is not supported, the device is not
            there.
    """
    from saeflow.models.fast_layers import (
        with_fast_layers,  # imports `transformers`, which takes a second
    )

    lm = load_to_train(directory, device, dtype)
    model = lm.model.eval().requires_grad_(False)
    return replace(lm, model=model if lm.family.adapted else with_fast_layers(model))


def load_to_train(directory: Path, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Load a model with the modules and gradients of `transformers`; else as `load_model`."""
    checkpoint, sums, changed = _recorded(Path(directory))
    _check_files(checkpoint, sums, changed)
    config = config_of(checkpoint)
    family = family_of(config)
    target = _device(device)
    if dtype not in DTYPES:
        raise SaeflowError(f"models: dtype '{dtype}' is not known; use one of {', '.join(DTYPES)}")
    with without_progress_bars():
        model = _read_weights(checkpoint, config, family, DTYPES[dtype])
    # rounded as asked for, also where they are computed with in float32
    model = model.to(dtype=dtype_on(target, DTYPES[dtype]))
    return LanguageModel(model.to(target), load_tokenizer(checkpoint), family)


def check_same_tokens(
    tokenizer: PreTrainedTokenizerBase, first: PreTrainedTokenizerBase, names: str
) -> None:
    """See that a model reads another's tokens as they are meant; it may have more of them.

    Raises:
        SaeflowError: a token of the first is another, or none, in the second.
    """
    vocabulary = tokenizer.get_vocab()
    if any(vocabulary.get(token) != number for token, number in first.get_vocab().items()):
        raise SaeflowError(
            f"models: {names} have different tokenizers; compare models that share one"
        )


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint directory.

    Raises:
        SaeflowError: it has no tokenizer files, or they cannot be read.
    """
    checkpoint = checkpoint_of(Path(directory))
    if fault := fault_of_tokenizer(checkpoint):
        raise SaeflowError(f"{checkpoint}: {fault}")
    try:
        if (
            checkpoint / "tokenizer.json"
        ).is_file():  # says everything itself; the automatic class loads 1 s longer
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(checkpoint, local_files_only=True)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    except Exception as error:
        raise SaeflowError(
            f"{checkpoint}: the tokenizer cannot be read ({_first_line(error)}); fetch it again"
        ) from error


def opening_token(directory: Path) -> int:
    """The token that opens every text of a model in a folder, whose weights are not loaded; raises
    as `bos_id` does."""
    checkpoint = checkpoint_of(Path(directory))
    config = text_section(read_object(checkpoint / "config.json"))
    return bos_id(load_tokenizer(checkpoint), config.get("bos_token_id"))


def checkpoint_of(directory: Path) -> Path:
    """The checkpoint directory that a model directory is or points at, its small files checked.

    Raises:
        SaeflowError: the directory, or what its ``model.json`` points at, is absent or has changed
            since.
    """
    checkpoint, sums, changed = _recorded(directory)
    _check_files(
        checkpoint,
        {name: digest for name, digest in sums.items() if not name.endswith(WEIGHTS)},
        changed,
    )
    return checkpoint


def _recorded(directory: Path) -> tuple[Path, dict[str, str], Callable[[Path, str], SaeflowError]]:
    """The checkpoint of a model directory, the SHA-256 of its files, and what to say of a file that
    differs."""
    if not directory.is_dir():
        raise SaeflowError(f"{directory}: no such model directory; check the path of the model")
    pointer = directory / POINTER
    if not pointer.is_file() or "path" not in (record := read_object(pointer)):
        sums = read_checksums(directory / CHECKSUMS)
        # The workflow makes a model again where the checksums beside its folder are gone.
        beside = directory.with_name(f"{directory.name}.{CHECKSUMS}")
        return directory, sums, lambda file, what: DamagedError(f"{file}: {what}", [file, beside])
    try:
        sums = {name: str(file["sha256"]) for name, file in record["files"].items()}
    except (AttributeError, KeyError, TypeError):
        raise SaeflowError(
            f"{pointer}: does not say which files it stands for; remove {pointer.parent} and start "
            "again to link anew"
        ) from None

    def changed(file: Path, what: str) -> SaeflowError:
        return SaeflowError(
            f"{file}: {what} since {pointer} was written; remove {pointer.parent} and start again "
            "to link anew"
        )

    return Path(str(record["path"])), sums, changed


def _check_files(
    checkpoint: Path, sums: Mapping[str, str], changed: Callable[[Path, str], SaeflowError]
) -> None:
    if not checkpoint.is_dir():
        raise changed(checkpoint, "has gone")
    for file in filter(Path.is_file, checkpoint.iterdir()):
        refuse_pointer(file)
    for name, digest in sums.items():
        file = inside(checkpoint, name)
        if not file.is_file():
            raise changed(file, "has gone")
        if sha256(file) != digest:
            raise changed(file, "has changed")
        refuse_other_settings(file)


def config_of(checkpoint: Path) -> PretrainedConfig:
    """The config of the language model in a checkpoint, which may hold a model of images, too.

    Raises:
        SaeflowError: there is none, or `transformers` does not know its type.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if not (checkpoint / "config.json").is_file():
        raise SaeflowError(
            f"{checkpoint}: has no config.json; name a Hugging Face checkpoint directory"
        )
    said = read_object(checkpoint / "config.json")
    if fault := fault_of_config(said):
        raise SaeflowError(f"{checkpoint}: {fault}")
    model_type = said.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING_NAMES:
        raise SaeflowError(
            f"{checkpoint}: models of type '{model_type}' are not supported; supported are "
            f"{', '.join(FAMILIES)}, and the decoders of transformers that TransformerLens has an "
            "adapter for"
        )
    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    except Exception as error:
        raise SaeflowError(
            f"{checkpoint}: its config.json cannot be read ({_first_line(error)}); fetch it again"
        ) from error
    return getattr(config, "text_config", None) or config


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # torch without CUDA answers with an AssertionError
        raise SaeflowError(
            f"models: device '{name}' is not there; use cpu, or check the driver"
        ) from None
    return device


_OF_TEXT = {
    r"^language_model\.lm_head": "lm_head",
    r"^(model\.)?language_model\.(model\.)?": "model.",
}
"""Names of weights in checkpoints of models of text and images, and in the text's model alone."""


def _read_weights(
    checkpoint: Path, config: PretrainedConfig, family: Family, dtype: torch.dtype
) -> PreTrainedModel:
    import transformers

    if fault := fault_of_weights(checkpoint):
        raise SaeflowError(f"{checkpoint}: {fault}")
    if (index := checkpoint / "model.safetensors.index.json").is_file():
        for name in weight_files(index):
            inside(checkpoint, name)
    of_images_too = "text_config" in read_object(checkpoint / "config.json")
    try:
        _check_layers(checkpoint)
        model, report = getattr(transformers, family.model_class).from_pretrained(
            checkpoint,
            config=config,
            key_mapping=_OF_TEXT if of_images_too else None,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except SaeflowError:
        raise
    except Exception as error:
        what = f"the weights cannot be read ({_first_line(error)})"
        if "ignore_mismatched_sizes" in str(error):  # its list went to a log that nobody is shown
            what = "its weights have other shapes than its config.json says"
        raise SaeflowError(f"{checkpoint}: {what}; fetch them again") from error
    if missing := sorted(report["missing_keys"]):
        # transformers would fill them with random numbers
        raise SaeflowError(
            f"{checkpoint}: the weights lack {missing[0]} and {len(missing) - 1} more; fetch them "
            "again"
        )
    return model


def weight_files(index: Path) -> list[str]:
    """The files of weights that an index of several names.

    Raises:
        SaeflowError: it names none.
    """
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise SaeflowError(
            f"{index}: has no weight_map from tensors to files; fetch the checkpoint again"
        )
    return sorted(set(names.values()))


def _check_layers(checkpoint: Path) -> None:
    """Hold the number of layers against the weights: a model is built layer by layer before these
    are read.

    Raises:
        SaeflowError: the config says more layers than there are tensors.
    """
    config = text_section(read_object(checkpoint / "config.json"))
    layers = next((config[name] for name in LAYER_NAMES if name in config), 1)
    tensors = 0
    for file in checkpoint.glob(f"*{WEIGHTS}"):
        with safe_open(file, framework="pt") as weights:
            tensors += len(weights.keys())
    if not isinstance(layers, int) or not 0 < layers <= tensors:
        raise SaeflowError(
            f"{checkpoint}: its config.json says {str(layers)[:40]} layers, and its weights hold "
            f"{tensors} tensors; fetch them again"
        )


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is not known"
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep the bars of `transformers`, which last a moment, out of the logs of jobs, and the list
    of weights of images that a model of text has no place for: what is missing is an error here."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
