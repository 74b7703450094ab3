"""The real chat model: what its file holds is what runs, and it runs as it should."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from smollm2 import cached_files, study

from saeflow.activations.exclusion import capture_kept
from saeflow.config.sections import Message, Sampling
from saeflow.decoding.generation import generate
from saeflow.models.chat import prompt_text
from saeflow.models.language_model import LanguageModel, load_model
from saeflow.models.running import logits, token_losses
from saeflow.notebook.saes import train_sae
from saeflow.seeds import row_keys

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def files() -> tuple[Path, Path]:
    return cached_files()


@pytest.fixture(scope="module")
def lm(files: tuple[Path, Path]) -> LanguageModel:
    return load_model(files[1])


def test_the_checkpoints_weights_are_the_numbers_of_the_file(files: tuple[Path, Path]) -> None:
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(files[0]).tensors}

    def numbers(name: str) -> np.ndarray:
        return gguf.dequantize(stored[name].data, stored[name].tensor_type)

    with safe_open(files[1] / "model.safetensors", "np") as ours:
        assert len(ours.keys()) == len(stored) == 272
        for name, theirs in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
            ("model.layers.29.self_attn.v_proj.weight", "blk.29.attn_v.weight"),
            ("model.norm.weight", "output_norm.weight"),
        ]:
            np.testing.assert_array_equal(ours.get_tensor(name), numbers(theirs))
        queries = ours.get_tensor("model.layers.12.self_attn.q_proj.weight")
    turned = numbers("blk.12.attn_q.weight").reshape(9, 32, 2, 576)  # neighbours, heads of 64
    np.testing.assert_array_equal(queries, turned.swapaxes(1, 2).reshape(576, 576))


def test_messages_are_written_by_the_models_own_template(lm: LanguageModel) -> None:
    text = prompt_text([Message(role="user", content="Hello")], lm.tokenizer)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = lm.tokenize(text)
    assert tokens.count(lm.bos_id) == 3
    assert tokens[0] == lm.bos_id
    assert lm.tokenizer.decode(lm.end_ids) == "<|im_end|>"


def test_plain_english_costs_two_nats_a_token(lm: LanguageModel) -> None:
    tokens = torch.tensor([lm.tokenize("The capital of France is Paris, and the river that flows "
                                       "through the city is called the Seine.")])  # fmt: skip
    loss = token_losses(logits(lm, tokens), tokens).mean().item()
    assert 1.0 < loss < 3.0
    shuffled = tokens[:, torch.tensor([0, *range(tokens.shape[1] - 1, 0, -1)])]
    assert token_losses(logits(lm, shuffled), shuffled).mean().item() > loss + 3


def test_greedy_text_answers_the_question(lm: LanguageModel) -> None:
    asked = [Message(role="user", content="What is the capital of France?")]
    prompt = torch.tensor([lm.tokenize(prompt_text(asked, lm.tokenizer))])
    keys = row_keys(0, "greedy", [(0,)])
    greedy = Sampling(temperature=0)
    hook = study().hook
    drawn = generate(lm, prompt, None, hook, greedy, keys, 12)[0].tolist()
    assert lm.tokenizer.decode(drawn, skip_special_tokens=True) == "The capital of France is Paris."


def test_an_sae_learns_from_activations_without_sinks(lm: LanguageModel) -> None:
    settings, hook = study().activations, study().hook
    texts = [f"{number} people walked to the market, and the {animal} followed them home."
             for number in ("Two", "Ten", "Many") for animal in ("dog", "horse", "cat")]  # fmt: skip
    tokens = torch.tensor([lm.tokenize(text)[:14] for text in texts])
    read, kept = capture_kept(lm, tokens, [hook], settings)
    norms = read[hook].norm(dim=-1)
    assert norms[:, 0].min() > 10 * norms[kept].max()  # BOS is a sink
    assert not kept[:, 0].any()
    assert kept[:, 1:].float().mean() > 0.9
    tiny = {"d_sae": 64, "k": 8, "batch_size": 64, "tokens": 6400}
    trained = train_sae(lm, texts, hook, tiny, context=14)
    errors = trained.curve["error"].to_list()
    assert errors[-1] < errors[0] / 2
    assert torch.equal(
        (trained.sae.encode(read[hook][kept]) > 0).sum(dim=-1), torch.full((int(kept.sum()),), 8)
    )
