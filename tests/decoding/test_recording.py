"""A decode step that is recorded as a graph: what it says when it is replayed, and that nothing in it
asks the GPU or Python again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretended_cuda import pretended_cuda
from steered import HOOK, tiny_lm, unit_rows

from saeflow.config.sections import Sampling
from saeflow.decoding.edits import Edit
from saeflow.decoding.generation import Memory, generate
from saeflow.decoding.recording import Recording
from saeflow.models.language_model import LanguageModel
from saeflow.seeds import row_keys

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = torch.tensor([[0, 5, 7], [0, 9, 4]])


def decoded(
    lm: LanguageModel, device: str, scale: float, memory: Memory
) -> tuple[np.ndarray, torch.Tensor]:
    """Tokens drawn, and the stream read on the way."""
    parts: list[torch.Tensor] = []
    edit = Edit("add", unit_rows(2).to(device), torch.full((2,), scale, device=device))
    keys = row_keys(0, "test", [(row,) for row in range(6)])
    tokens = generate(
        lm,
        PROMPTS.to(device),
        edit,
        HOOK,
        Sampling(),
        keys,
        8,
        lambda resid, _: parts.append(resid.cpu()),
        memory,
    )
    return tokens.cpu().numpy(), torch.cat(parts, 1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_a_graph_of_a_decode_step_says_batch_after_batch_what_steps_of_python_say(
    family: str,
) -> None:
    on_cpu = tiny_lm(family)
    eager = {scale: decoded(on_cpu, "cpu", scale, Memory()) for scale in (4.0, 9.0)}
    with pretended_cuda() as gpu:
        lm = LanguageModel(on_cpu.model.to("cuda"), on_cpu.tokenizer, on_cpu.family)
        memory = Memory(recording=Recording())
        for scale, (tokens, stream) in eager.items():
            replayed = decoded(lm, "cuda", scale, memory)
            assert np.array_equal(replayed[0], tokens)
            torch.testing.assert_close(replayed[1], stream, rtol=1e-4, atol=1e-5)
    assert not gpu.of_cpu
