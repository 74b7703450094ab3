"""The size of a language model, told by its config alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from saeflow.artifacts import read_object
from saeflow.config.gguf_header import hugging_face_config, is_gguf
from saeflow.config.model_files import (
    HEAD_NAMES,
    LAYER_NAMES,
    WIDTH_NAMES,
    config_file,
    text_section,
)
from saeflow.config.sections import Core
from saeflow.errors import SaeflowError

TALES_VOCABULARY = 1446  # words of the story grammar


class ModelShape(NamedTuple):
    """What the work of a forward pass follows from."""

    d_model: int
    n_layers: int
    d_vocab: int
    matrices: tuple[tuple[int, int], ...]
    """Inputs and outputs of the weight matrices of one layer."""

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        return sum(n * m for n, m in self.matrices)

    @property
    def unembedding(self) -> int:
        """Weights of the unembedding."""
        return self.d_model * self.d_vocab

    def flop(self, first: int = 0, last: int | None = None, logits: bool = True) -> int:
        """Operations per token of the products of layers ``first`` to ``last``, both included;
        attention is left out.

        Args:
            first: layer that is run first.
            last: layer that is run last; None is the last of the model.
            logits: whether the unembedding is run.
        """
        layers = (self.n_layers if last is None else last + 1) - first
        return 2 * (layers * self.layer + logits * self.unembedding)


def model_shape(study: Core) -> ModelShape | None:
    """The model of a study; None where its config.json is not on this machine yet."""
    if train := study.origin_of(study.model.name).train:
        d, mlp = train.d_model, train.d_mlp
        return ModelShape(
            d, train.n_layers, TALES_VOCABULARY, ((d, 3 * d), (d, d), (d, 2 * mlp), (mlp, d))
        )
    file = config_file(study.model)
    if not file or not file.is_file():
        return None
    try:
        return shape_of(hugging_face_config(file) if is_gguf(file) else read_object(file))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SaeflowError(
            f"{file}: does not tell the shape of a model ({what}); get it again"
        ) from None


# What families call the same number, and those whose MLP has two matrices, without a gate.
_NAMES = {
    "width": WIDTH_NAMES,
    "layers": LAYER_NAMES,
    "heads": HEAD_NAMES,
    "mlp": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "experts": ("num_experts_per_tok",),
}
_WITHOUT_GATE = (
    *("apertus", "arcee", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "jais2", "mpt", "nanochat", "nemotron", "opt", "phi", "starcoder2"),
    "xglm",
)


def shape_of(config: dict[str, Any]) -> ModelShape:
    """The shape that a Hugging Face ``config.json`` describes, of the language model in it; of
    experts, those that read one token."""
    config = text_section(config)
    given = {
        key: next((config[name] for name in names if config.get(name)), None)
        for key, names in _NAMES.items()
    }
    d, heads = given["width"], given["heads"]
    if not d or not heads or not given["layers"]:
        raise KeyError("hidden_size, num_attention_heads or num_hidden_layers")
    width = config.get("head_dim") or d // heads
    experts = given["experts"] or 1
    mlp = experts * (config.get("moe_intermediate_size") or given["mlp"] or 4 * d)
    gates = 1 if config.get("model_type") in _WITHOUT_GATE else 2
    grouped = config.get("num_key_value_heads") or heads
    if config.get("model_type") in ("falcon", "gpt_bigcode") and config.get("multi_query"):
        grouped = 1
    matrices = ((d, (heads + 2 * grouped) * width), (heads * width, d), (d, gates * mlp), (mlp, d))
    return ModelShape(d, given["layers"], config["vocab_size"], matrices)
