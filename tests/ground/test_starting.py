"""What a job does not import when it starts, and what it can still do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SPARED = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "scipy.optimize")
BEGIN = """
import json, sys
from saeflow.starting import spare_imports
if {spared}:
    spare_imports()
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
"""
TRAIN_AND_DRAW = """
numbers = []
shape = dict(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
             num_attention_heads=2, num_key_value_heads=2)
for config, kind in ((LlamaConfig, LlamaForCausalLM), (MistralConfig, MistralForCausalLM)):
    torch.manual_seed(0)
    model = kind(config(**shape, **({} if kind is LlamaForCausalLM else {"sliding_window": 4})))
    tokens = torch.arange(24).view(2, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        numbers.append(loss.item())
    masked = torch.ones_like(tokens)
    masked[0, :3] = 0
    numbers += model(tokens, attention_mask=masked).logits.flatten()[:50].tolist()
    drawn = model.generate(tokens, max_new_tokens=5, do_sample=False, pad_token_id=0)
    numbers += drawn.flatten().tolist()
print(json.dumps(numbers))
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_job_that_runs_a_model_imports_no_compiler_and_nothing_for_many_machines():
    tell = f"print(json.dumps([name for name in {SPARED} if name in sys.modules]))"
    assert json.loads(run(BEGIN.format(spared=True) + tell)) == []
    assert set(json.loads(run(BEGIN.format(spared=False) + tell))) == set(SPARED), (
        "what transformers imports by itself: were it less, there would be less to spare"
    )


def test_models_of_a_spared_process_train_and_draw_to_the_same_bits():
    spared, whole = (
        json.loads(run(BEGIN.format(spared=spared) + TRAIN_AND_DRAW)) for spared in (True, False)
    )
    assert spared == whole
    assert len(spared) == 2 * (3 + 50 + 2 * 17)


@pytest.mark.parametrize("name", ["torch._dynamo", "torch.distributed.tensor", "scipy.optimize"])
def test_what_was_spared_is_imported_once_it_is_asked_for(name):
    asked = f"import {name}; print({name}.__file__)"
    spared, whole = (run(BEGIN.format(spared=spared) + asked) for spared in (True, False))
    assert spared == whole
