"""A model of `transformers` with its slow leaves exchanged for fast ones; modules and hooks keep
their paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from saeflow.products import Activation, linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "saeflow"  # under which transformers knows `attend`
_OF_FEW = "saeflow_of_few"
_SHORT = 32

# Attributes of an MLP whose activation function directly follows a linear layer: (linear layer,
# activation function).
_FOLLOWED = (("c_fc", "act"), ("dense_h_to_4h", "act"), ("gate_proj", "act_fn"))


_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    NewGELUActivation: "gelu_tanh",
    GELUTanh: "gelu_tanh",
    GELUActivation: "gelu",
    SiLUActivation: "silu",
    nn.SiLU: "silu",
    nn.ReLU: "relu",
}


class Linear(nn.Module):
    """A linear layer through `saeflow.products.linear`, with the activation function that follows
    it, if any."""

    def __init__(
        self, weight: Float[Tensor, "n_out n_in"], bias: Tensor | None, activation: Activation
    ) -> None:
        """Take over parameters, or such as share their memory."""
        super().__init__()
        self.weight, self.bias = weight, bias
        self.activation = activation

    def forward(self, x: Float[Tensor, "... n_in"]) -> Float[Tensor, "... n_out"]:
        return linear(x, self.weight, self.bias, self.activation)


def with_fast_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Exchange linear layers, activation functions and attention of a model that will only run.

    Args:
        model: in evaluation mode, on its device; it is changed in place.

    On a GPU only attention is exchanged: its own libraries are as fast, and a compiler fuses what
    is left.
    """
    model.config._attn_implementation = ATTENTION
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        return model
    for module in list(model.modules()):
        for first, then in _FOLLOWED:
            if hasattr(module, first) and (activation := _activation(getattr(module, then, None))):
                setattr(module, first, _exchanged(getattr(module, first), activation))
                setattr(module, then, nn.Identity())
        for name, child in module.named_children():
            if isinstance(child, nn.Linear | Conv1D):
                setattr(module, name, _exchanged(child, "none"))
    return model


def _activation(module: nn.Module | None) -> Activation | None:
    """What an activation function is called here; None for one that cannot follow a product
    directly."""
    return next((name for kind, name in _ACTIVATIONS.items() if isinstance(module, kind)), None)


def _exchanged(layer: nn.Module, activation: Activation) -> Linear:
    assert isinstance(layer, nn.Linear | Conv1D)
    layer.requires_grad_(False)
    if isinstance(layer, Conv1D):
        weight = nn.Parameter(layer.weight.data.T.contiguous(), requires_grad=False)
        return Linear(weight, layer.bias, activation)
    # Itself: an unembedding tied to the embedding stays so.
    return Linear(layer.weight, layer.bias, activation)


def attend(
    module: nn.Module,
    query: Float[Tensor, "rows heads pos width"],
    key: Float[Tensor, "rows kv_heads all_pos width"],
    value: Float[Tensor, "rows kv_heads all_pos width"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    few: bool = False,
    **kwargs: object,
) -> tuple[Float[Tensor, "rows pos heads width"], None]:
    """Attention as `transformers` calls it.

    For one new token per row of a large batch on a CPU, torch's fused attention spends its time on
    calls, one per row and head; two batched products are two to five times faster. A soft-cap,
    which fused attention does not know, goes the same way, and so do `few_tokens`.
    """
    single = query.shape[2] == 1 and query.device.type == "cpu"
    if softcap is None and not (single or few):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    rows, heads, length, width = query.shape
    grouped = query.to(key.dtype).reshape(rows, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(2, 3)).view(rows, heads, length, -1) * (
        scaling or width**-0.5
    )
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None and length > 1:
        attention_mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril(
            scores.shape[3] - length
        )
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    weights = (_softmax_of_few if few else _softmax)(scores).to(value.dtype)
    attended = (weights.view(*grouped.shape[:3], -1) @ value).view(rows, heads, length, -1)
    return attended.to(query.dtype).transpose(1, 2).contiguous(), None


for _name, _function in ((ATTENTION, attend), (_OF_FEW, partial(attend, few=True))):
    ALL_ATTENTION_FUNCTIONS.register(_name, _function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_name, sdpa_mask)


def _softmax(scores: Float[Tensor, "... keys"]) -> Float[Tensor, "... keys"]:
    return scores.softmax(-1, dtype=torch.float32)


def _softmax_of_few(scores: Float[Tensor, "... keys"]) -> Float[Tensor, "... keys"]:
    """The same; of rows that are shorter than a row costs to begin, number by number."""
    if scores.shape[-1] > _SHORT:
        return _softmax(scores)
    scores = scores.float()
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


@contextmanager
def few_tokens(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, a model on a CPU runs many rows of a few tokens each: there two batched
    products beat fused attention at any length, as they do at one token (`attend`). A model whose
    attention was not exchanged stays as it is."""
    usual = model.config._attn_implementation
    if usual == ATTENTION and model.device.type == "cpu":
        model.config._attn_implementation = _OF_FEW
    try:
        yield
    finally:
        model.config._attn_implementation = usual
