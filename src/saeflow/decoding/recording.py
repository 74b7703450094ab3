"""A decode step of fixed shape, recorded once as a CUDA graph and replayed for every token of every
batch.

With few rows or a small model, a GPU waits for Python to launch the next kernel. A recorded step is
launched as one. Everything it touches has a fixed address: tokens, edit, keys and values, logits,
the residual stream at the hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from saeflow.decoding.edits import Edit, apply
from saeflow.models.hooks import attach

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

Step = Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows d_vocab"]]
WARM_UP = 2  # runs before a recording, in which libraries choose their kernels


class Recording:
    """The recorded step, and the memory it works in; made anew when the shape of the batches
    changes.

    On a CPU the step is run instead of replayed, in the same memory.
    """

    def __init__(self) -> None:
        self.shape: tuple[object, ...] = ()

    def begin(
        self,
        lm: LanguageModel,
        hook: str,
        edit: Edit | None,
        prompts: Cache,
        length: int,
        then: Callable[[Tensor], object],
    ) -> Step:
        """Get ready to continue prompts.

        Args:
            lm: the model.
            hook: where the edit is made and the stream is read.
            edit: one row per text; it must treat all generated tokens alike.
            prompts: keys and values of the prompts, one row per text.
            length: of the texts, prompt included.
            then: called with the residual stream ``[rows, 1, d_model]`` at the hook, before the
                edit, after every step.

        Returns:
            One step: tokens in, logits of what comes next out. The logits are overwritten by the
            next step.
        """
        keys = prompts.layers[0].keys
        assert keys is not None
        rows, filled = keys.shape[0], keys.shape[2]
        shape = (
            id(lm.model),
            hook,
            edit and (edit.kind, edit.positions, edit.include_bos),
            rows,
            length,
            filled,
        )
        fresh = shape != self.shape
        if fresh:
            self.shape, self.lm, self.hook, self.filled = shape, lm, hook, filled
            self.tokens = torch.zeros(rows, dtype=torch.long, device=lm.device)
            self.edit = edit and edit._replace(
                vectors=edit.vectors.clone(), scales=edit.scales.clone()
            )
            self.cache = Cache(layers=[StaticLayer(length) for _ in range(lm.n_layers)])
        self._fill(edit, prompts)
        if fresh:
            self._record()
            self._fill(edit, prompts)

        def step(tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows d_vocab"]:
            self.tokens.copy_(tokens)
            self._replay()
            then(self.resid.clone())
            return self.logits

        return step

    def _fill(self, edit: Edit | None, prompts: Cache) -> None:
        if self.edit and edit:
            self.edit.vectors.copy_(edit.vectors)
            self.edit.scales.copy_(edit.scales)
        for layer, given in zip(self.cache.layers, prompts.layers, strict=True):
            assert isinstance(layer, StaticLayer)
            assert given.keys is not None
            assert given.values is not None
            if not layer.is_initialized:
                layer.lazy_initialization(
                    given.keys.to(self.lm.dtype), given.values.to(self.lm.dtype)
                )
            layer.keys[:, :, : self.filled] = given.keys
            layer.values[:, :, : self.filled] = given.values
            layer.cumulative_length.fill_(self.filled)

    def _run(self) -> None:
        with attach(self.lm, [(self.hook, self._at_hook)]):
            output = self.lm.model(
                self.tokens[:, None], past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
        self.logits = output.logits[:, -1]

    def _at_hook(
        self, resid: Float[Tensor, "rows 1 d_model"]
    ) -> Float[Tensor, "rows 1 d_model"] | None:
        self.resid = resid
        return None if self.edit is None else apply(self.edit, resid, self.filled, self.filled)

    def _record(self) -> None:
        self._replay = self._run
        if self.lm.device.type != "cuda":
            return
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                for layer in self.cache.layers:
                    assert isinstance(layer, StaticLayer)
                    layer.cumulative_length.fill_(self.filled)
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self._replay = graph.replay
