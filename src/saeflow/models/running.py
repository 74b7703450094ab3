"""Forward passes, whole and in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.cache_utils import DynamicCache

from saeflow.errors import SaeflowError
from saeflow.models.exhaustion import is_out_of_memory
from saeflow.models.hooks import HookFunction, attach, check_hook
from saeflow.models.language_model import LanguageModel

# Logits that are held at once, of few positions: with a large vocabulary those of some blocks fill
# any memory.
_LOGITS_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 26}
_POSITIONS_AT_ONCE = 128  # but never fewer, or the unembedding is read more often than it is used


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """Everything asked for has been seen; the rest of the pass is not needed."""


def padded(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Int[Tensor, "rows pos"]:
    """Padding stands on the right, where a causal model's earlier positions do not see it."""
    width = max(map(len, rows))
    return torch.tensor(
        [[*row, *[lm.bos_id] * (width - len(row))] for row in rows], device=lm.device
    )


def check_length(lm: LanguageModel, tokens: int) -> None:
    """See that a text fits: models with rotary positions run beyond what they were trained on
    without a word.

    Raises:
        SaeflowError: it is longer than the model's context.
    """
    if tokens > lm.context:
        raise SaeflowError(
            f"models: a text of {tokens} tokens is longer than the model's context, {lm.context} "
            "(max_position_embeddings); lower corpus.context, or shorten the text"
        )


@torch.no_grad()
def logits(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_vocab"]:
    """The logits of a whole forward pass; raises as `capture` does."""
    check_length(lm, tokens.shape[1])
    return lm.model(tokens, use_cache=False).logits


@torch.no_grad()
def final_states(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_model"]:
    """What the unembedding reads, after the final norm, from a whole forward pass; raises as
    `capture` does."""
    check_length(lm, tokens.shape[1])
    return lm.decoder(tokens, use_cache=False).last_hidden_state


@torch.no_grad()
def clean_and_again(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"], layer: int
) -> tuple[Float[Tensor, "batch pos d_model"], Callable[[], Float[Tensor, "batch pos d_model"]]]:
    """`final_states`, and what gives them once more while hooks are attached.

    Only layers from the lowest one with a hook on run again, since what lies below them is the
    same.

    Args:
        lm: the model, without hooks.
        tokens: on its device.
        layer: the lowest at which hooks will be attached.
    """
    if layer == 0 or lm.family.adapted:
        return final_states(lm, tokens), partial(final_states, lm, tokens)
    below: list[Tensor] = []
    with attach(lm, [(f"blocks.{layer - 1}.hook_resid_post", below.append)]):
        clean = final_states(lm, tokens)
    return clean, partial(torch.no_grad()(suffix_states), lm, below[0], layer - 1)


@torch.no_grad()
def states_after(
    lm: LanguageModel,
    prompts: Int[Tensor, "prompts prompt_length"],
    prompt_of: Int[Tensor, " rows"],
    continuations: Int[Tensor, "rows pos"],
) -> Float[Tensor, "rows pos_1 d_model"]:
    """The final states of the last token of a prompt and of what continues it; the prompt is run
    once for all that continue it.

    Args:
        lm: the model, of attention alone.
        prompts: of equal length, BOS included.
        prompt_of: which prompt each row continues.
        continuations: on the model's device.
    """
    check_length(lm, prompts.shape[1] + continuations.shape[1])
    cache = DynamicCache()
    before = lm.decoder(prompts, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
    cache.reorder_cache(prompt_of)
    rows = [before[prompt_of]]
    if continuations.shape[1]:
        after = lm.decoder(continuations, past_key_values=cache, use_cache=True)
        rows.append(after.last_hidden_state)
    return torch.cat(rows, dim=1)


def unembed(
    lm: LanguageModel, states: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows d_vocab"]:
    """The logits of some positions from their final states, by the model's own head, soft cap and
    all; with a gradient where the states have one.

    Args:
        states: rows of `final_states`.
    """
    with _module_replaced(lm.model, lm.family.stack, _Fixed(_Output(states[None]))):
        return lm.model(inputs_embeds=states[None], use_cache=False).logits[0]


def logits_after(
    lm: LanguageModel, states: Float[Tensor, "rows pos d_model"], lengths: Sequence[int]
) -> Float[Tensor, "rows d_vocab"]:
    """The logits of what comes after texts that are padded; float32.

    Args:
        lm: the model.
        states: of `padded` texts, from `final_states`.
        lengths: tokens of each text.
    """
    rows = torch.arange(len(lengths), device=states.device)
    last = torch.tensor([length - 1 for length in lengths], device=states.device)
    return unembed(lm, states[rows, last]).float()


def position_chunks(lm: LanguageModel, positions: int) -> Iterator[slice]:
    """So many positions in parts whose logits fit into a bounded memory, whatever the
    vocabulary."""
    at_once = max(_POSITIONS_AT_ONCE, _LOGITS_AT_ONCE[lm.device.type] // lm.d_vocab)
    return (slice(first, min(first + at_once, positions)) for first in range(0, positions, at_once))


def next_token_losses(
    lm: LanguageModel, states: Float[Tensor, "batch pos d_model"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos_1"]:
    """`token_losses` from final states, a part of the logits at a time.

    Args:
        states: of the tokens, from `final_states` or `suffix_states`.
        tokens: on the model's device.
    """
    rows, targets = states[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    parts = [
        cross_entropy(unembed(lm, rows[part]).float(), targets[part], reduction="none")
        for part in position_chunks(lm, len(rows))
    ]
    return torch.cat([rows.new_empty(0, dtype=torch.float32), *parts]).view(len(tokens), -1)


def not_finite(lm: LanguageModel, what: str, scale: float = 0.0) -> SaeflowError:
    """What to say where a model gives NaN or infinity.

    Args:
        lm: the model.
        what: is no number, such as ``effects: the loss``.
        scale: of the steering vector; 0 is no steering.
    """
    dtype = str(lm.dtype).removeprefix("torch.")
    advice = "lower the scale" if scale else "check its weights"
    if dtype == "float16":  # ends at 65,504, which activations of some models exceed
        advice = f"set model.dtype to bfloat16 or float32{', or lower the scale' if scale else ''}"
    name = lm.model.name_or_path or lm.model.config.model_type
    where = f"steered with scale {scale:.4g}" if scale else "unsteered"
    return SaeflowError(f"{what} of {name} in {dtype}, {where}, is NaN or infinite; {advice}")


@torch.no_grad()
def capture(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"], hooks: Sequence[str]
) -> dict[str, Float[Tensor, "batch pos width"]]:
    """Read tensors of one forward pass, which stops at the last of them.

    Args:
        lm: the model.
        tokens: on the model's device.
        hooks: names of the tensors.

    Returns:
        The tensors by hook, in the order asked for; heads of ``attn.hook_z`` lie side by side.

    Raises:
        SaeflowError: a hook does not exist, or the text is longer than the model's context.
    """
    check_length(lm, tokens.shape[1])
    wanted = dict.fromkeys(hooks)
    seen: dict[str, Tensor] = {}

    def reader(name: str) -> HookFunction:
        def read(tensor: Tensor) -> None:
            seen[name] = tensor
            if len(seen) == len(wanted):
                raise Stop

        return read

    if wanted:
        with suppress(Stop), attach(lm, [(name, reader(name)) for name in wanted]):
            lm.decoder(tokens, use_cache=False)
    return {name: seen[name] for name in wanted}


def run_prefix(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """The residual stream after a layer; nothing above it is computed.

    Raises:
        SaeflowError: the model has no such layer.
    """
    hook = f"blocks.{layer}.hook_resid_post"
    return capture(lm, tokens, [hook])[hook]


@torch.no_grad()
def run_suffix(
    lm: LanguageModel, resid: Float[Tensor, "batch pos d_model"], layer: int
) -> Float[Tensor, "batch pos d_vocab"]:
    """The logits that follow from the residual stream after a layer; neither it nor anything below
    is computed.

    Masks, rotary angles and layer types are the model's own, as its own forward pass runs with the
    lower layers replaced. Hooks attached to replaced layers are silent.

    Args:
        lm: the model.
        resid: what `run_prefix` gives, edited or not.
        layer: the layer it comes out of.

    Raises:
        SaeflowError: the model has no such layer.
    """
    states = suffix_states(lm, resid, layer)
    return unembed(lm, states.flatten(0, 1)).view(*states.shape[:2], -1)


def suffix_states(
    lm: LanguageModel, resid: Float[Tensor, "batch pos d_model"], layer: int
) -> Float[Tensor, "batch pos d_model"]:
    """The final states that follow from the residual stream after a layer, as `run_suffix` goes on
    from them; with a gradient where the stream has one."""
    check_hook(lm, f"blocks.{layer}.hook_resid_post")
    check_length(lm, resid.shape[1])
    with _layers_replaced(lm, layer, resid):
        # The embeddings only tell the model batch, positions and dtype; layer `layer` throws them
        # away.
        try:
            return lm.decoder(inputs_embeds=resid, use_cache=False).last_hidden_state
        except Exception as error:
            if not lm.family.adapted or is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise SaeflowError(
                f"models: {lm.model.config.model_type} models cannot go on from the residual "
                f"stream after a layer alone ({reason[:80]}…); scales by loss and divergences need "
                "that, so leave them out, or name a model of another family"
            ) from error


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos_1"]:
    """Cross-entropy in nats of every token but the first, given the tokens before it; float32."""
    # The last prediction of a row is thrown away, which is cheaper than copying the rest.
    targets = tokens.roll(-1, 1)
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return losses.view(tokens.shape)[:, :-1]


class _PassThrough(nn.Module):
    """Stands for a layer that need not run.

    Args:
        others: what the layer gives beside the residual stream; None where it gives that alone.
    """

    def __init__(self, others: int | None) -> None:
        super().__init__()
        self.others = others

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return hidden_states if self.others is None else (hidden_states, *[None] * self.others)


class _Fixed(nn.Module):
    """Stands for the module whose output is known."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


class _Output(tuple[Tensor]):
    """What a model without its unembedding gives, of which only the final states are known: by
    place and by name, as heads read them, and None for all else."""

    def __new__(cls, states: Tensor) -> _Output:
        return super().__new__(cls, (states,))

    def __getattr__(self, name: str) -> Tensor | None:
        return self[0] if name == "last_hidden_state" else None


@contextmanager
def _module_replaced(model: nn.Module, path: str, module: nn.Module) -> Iterator[None]:
    """Within the block, a model's module is another."""
    original = model.get_submodule(path)
    model.set_submodule(path, module)
    try:
        yield
    finally:
        model.set_submodule(path, original)


@contextmanager
def _layers_replaced(lm: LanguageModel, layer: int, resid: Tensor) -> Iterator[None]:
    """Within the block, layers up to ``layer`` are a stub that gives ``resid``.

    The list keeps its length, since models look up masks and layer types by index.
    """
    blocks, others = lm.blocks, _beside_stream(lm)
    originals = list(blocks[: layer + 1])
    try:
        for index in range(layer):
            blocks[index] = _PassThrough(others)
        blocks[layer] = _Fixed(resid if others is None else (resid, *[None] * others))
        yield
    finally:
        for index, original in enumerate(originals):
            blocks[index] = original


def _beside_stream(lm: LanguageModel) -> int | None:
    """How much a layer gives beside the residual stream; None where it gives a tensor alone."""
    if not lm.family.adapted:
        return None
    outputs: list[Any] = []

    def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output)
        raise Stop

    handle = lm.blocks[0].register_forward_hook(see)
    try:
        with suppress(Stop):
            lm.decoder(torch.zeros(1, 1, dtype=torch.long, device=lm.device), use_cache=False)
    finally:
        handle.remove()
    return len(outputs[0]) - 1 if isinstance(outputs[0], tuple) else None
