"""What a hub holds for workflow/studies/gemma-2-2b.yaml, in the layouts of the real releases, at
toy size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tokenizers
import torch
import transformers
from hub_server import Hub
from transformers import PreTrainedTokenizerFast

D_MODEL, D_SAE, N_VECTORS, N_LAYERS = 16, 16_384, 160, 14
MODEL, SCOPE, RELEASE, TEXT = (
    "google/gemma-2-2b",
    "google/gemma-scope-2b-pt-res",
    "schalnev/sae-ts-effects",
    "NeelNanda/c4-code-20k",
)
SENTENCES = [
    f"The {thing} stands near the {place}, and it is old."
    for thing in ("mill", "inn")
    for place in "abcdefghij"
]
NARROW = "layer_12/width_16k/average_l0_82/params.npz"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and BOS."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: index for index, token in enumerate(["<pad>", "<eos>", "<bos>", *alphabet])
    }
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def checkpoint(folder: Path) -> Path:
    """A random Gemma 2 with as many layers as the study's hook needs."""
    config = transformers.Gemma2Config(
        vocab_size=259,
        hidden_size=D_MODEL,
        intermediate_size=24,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=128,
        sliding_window=64,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Gemma2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def release(folder: Path) -> dict[str, Any]:
    """Effects and their map as the SAE-TS release has them: the map is what the effects were made
    by."""
    random = torch.Generator().manual_seed(1)
    M = torch.randn(D_MODEL, D_SAE, generator=random)
    b = torch.randn(D_SAE, generator=random) * 0.1
    rows = torch.nn.functional.normalize(torch.randn(N_VECTORS, D_MODEL, generator=random), dim=1)
    effects = rows @ M + b + 0.2 * torch.randn(N_VECTORS, D_SAE, generator=random)
    torch.save(
        {"features": rows * torch.linspace(20, 180, N_VECTORS)[:, None], "effects": effects},
        folder / "e.pt",
    )
    torch.save({"W": M, "b": b}, folder / "a.pt")
    return {"M": M, "b": b, "effects": effects}


def scope(folder: Path, d_sae: int) -> bytes:
    """A random JumpReLU SAE as Gemma Scope has it."""
    random = np.random.default_rng(d_sae)
    W_dec = random.standard_normal((d_sae, D_MODEL), dtype=np.float32)
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    zeros = {"b_enc": np.zeros(d_sae, np.float32), "b_dec": np.zeros(D_MODEL, np.float32)}
    threshold = np.full(d_sae, 0.5, np.float32)
    np.savez(folder / "params.npz", W_enc=W_dec.T.copy(), W_dec=W_dec, threshold=threshold, **zeros)
    return (folder / "params.npz").read_bytes()


def publish(hub: Hub, folder: Path) -> dict[str, Any]:
    """Fill a hub; gives back what the published effects were made of."""
    made = release(folder)
    hub.add(MODEL, checkpoint(folder / "model"), gated=True)
    hub.add(SCOPE, {NARROW: scope(folder, D_SAE), "README.md": b"Gemma Scope"})
    files = {
        "effects_2b.pt": (folder / "e.pt").read_bytes(),
        "adapter_2b_layer_12.pt": (folder / "a.pt").read_bytes(),
    }
    hub.add(RELEASE, files, "datasets")
    pl.DataFrame({"text": SENTENCES * 20}).write_parquet(folder / "text.parquet")
    text = (folder / "text.parquet").read_bytes()
    hub.add(
        TEXT, {"data/train-00000-of-00001.parquet": text, "README.md": b"C4 and code"}, "datasets"
    )
    return made
