"""Models and activations at a prompt are those of the rooms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import environment, serving
from notebook_files import HOOK

import saeflow as sf
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models import running

pytestmark = pytest.mark.usefixtures("one_thread", "here")

TEXTS = ["the cat sat", "a dog ran under the tree"]
MLP = "blocks.0.hook_mlp_out"


def test_activations_of_texts_are_those_of_passes_of_their_own() -> None:
    lm = sf.load_model("models/tiny")
    read = sf.capture(lm, TEXTS, [HOOK, MLP])
    tokens = [lm.tokenize(text) for text in TEXTS]
    for hook in (HOOK, MLP):
        rows = read[hook]
        alone = [running.capture(lm, torch.tensor([each]), [hook])[hook][0] for each in tokens]
        assert torch.equal(rows.activations, torch.cat(alone))
        assert rows.tokens.tolist() == [token for each in tokens for token in each]
        assert rows.blocks.tolist() == [0] * len(tokens[0]) + [1] * len(tokens[1])
        assert rows.positions.tolist() == [*range(len(tokens[0])), *range(len(tokens[1]))]


def test_a_token_that_is_left_out_gives_no_row() -> None:
    lm = sf.load_model("models/tiny")
    whole, rest = (
        sf.capture(lm, TEXTS, HOOK, exclude=exclude)[HOOK] for exclude in ("nothing", "bos")
    )
    kept = torch.from_numpy(whole.tokens != lm.bos_id)
    assert torch.equal(rest.activations, whole.activations[kept])
    assert not kept.all()


def test_activations_of_blocks_are_those_of_one_pass() -> None:
    lm = sf.load_model("models/tiny")
    tokens = np.array([lm.tokenize("the cat sat"), lm.tokenize("a dog ran")], np.int32)
    rows = sf.capture(lm, TokenBlocks(tokens, {}, {}), HOOK)[HOOK]
    together = running.capture(lm, torch.from_numpy(tokens).long(), [HOOK])[HOOK]
    assert torch.equal(rows.activations, together.flatten(0, 1))
    assert rows.blocks.tolist() == [0] * 4 + [1] * 4


def test_a_model_that_is_nowhere_is_refused_in_a_sentence() -> None:
    with pytest.raises(SaeflowError, match="models/absent/deep: no such model directory"):
        sf.load_model("models/absent/deep")
    with pytest.raises(SaeflowError, match=r"hook 'blocks\.9\.hook_resid_post' does not exist"):
        sf.capture(sf.load_model("models/tiny"), "the cat", "blocks.9.hook_resid_post")


FROM_HUB = f"""
import sys, torch
import saeflow as sf
lm = sf.load_model("some/model", revision="v1")
sae = sf.load_sae("some/saes", file="layer_1")
own, own_sae = sf.load_model("models/tiny"), sf.load_sae("saes/tiny")
assert torch.equal(*(sf.capture(each, "the cat sat", "{HOOK}")["{HOOK}"].activations
                     for each in (lm, own)))
assert torch.equal(sae.W_enc, own_sae.W_enc) and torch.equal(sae.W_dec, own_sae.W_dec)
assert lm.model.name_or_path == "some/model", lm.model.name_or_path
print(sae.metadata["published"]["repo"])
try:
    sf.load_model("some/model", revision="v2")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_repository_of_the_hub_is_loaded_at_its_revision(here: Path, tmp_path: Path) -> None:
    with serving() as hub:
        hub.add("some/model", here / "models" / "tiny", revisions=("main", "v1"))
        saes = {
            f"layer_1/{file.name}": file.read_bytes() for file in (here / "saes/tiny").iterdir()
        }
        hub.add("some/saes", saes)
        variables = {**os.environ, **environment(hub, tmp_path)}
        command = [sys.executable, "-c", FROM_HUB]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    origin, refusal = done.stdout.splitlines()
    assert origin == "some/saes"
    assert refusal.startswith("SaeflowError load_model: ")
    assert "v2" in refusal
