"""Training: it learns, it is reproducible, and an interruption does not show."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import tiny_tokenizer

from saeflow.config.sections import ModelTraining
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models import training
from saeflow.models.training import learning_rate, train_model

SETTINGS = ModelTraining(
    d_model=16,
    n_layers=2,
    n_heads=2,
    d_mlp=32,
    batch_size=8,
    epochs=2,
    learning_rate=1e-2,
    warmup_steps=3,
)


def rising_blocks(count: int = 60, length: int = 16) -> TokenBlocks:
    """Blocks in which every token is the one before it plus one; only the second is a surprise."""
    starts = np.random.default_rng(0).integers(0, 16, count)
    tokens = 3 + (starts[:, None] + np.arange(length)) % 16
    tokens[:, 0] = 0
    return TokenBlocks(tokens.astype(np.int32), {}, {})


def weights(trained: training.TrainedModel) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in trained.model.parameters()])


def test_a_rule_of_the_text_is_learned():
    settings = SETTINGS.model_copy(update={"d_model": 32, "epochs": 12})
    trained = train_model(settings, rising_blocks(256), tiny_tokenizer(), seed=0)
    loss = trained.curve["loss"]
    assert loss[0] > 2.5
    assert loss[-1] < math.log(16) / 15 + 0.05  # the unpredictable second token, shared by 15


@pytest.mark.parametrize("at", [1, 5, 9, 13])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    at, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole = train_model(SETTINGS, rising_blocks(), tiny_tokenizer(), seed=3)
    checkpoint = tmp_path / "state.pt"
    steps = []

    def killed(done, _total):
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(SETTINGS, rising_blocks(), tiny_tokenizer(), 3, checkpoint, killed)
    torch.manual_seed(at)  # the global generator must not matter
    resumed = train_model(
        SETTINGS,
        rising_blocks(),
        tiny_tokenizer(),
        3,
        checkpoint,
        lambda done, _: steps.append(done),
    )
    assert steps == list(range(at + 1, 17))
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.curve.equals(whole.curve)


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "state.pt"
    train_model(SETTINGS, rising_blocks(), tiny_tokenizer(), 3, checkpoint)
    other = train_model(SETTINGS, rising_blocks(), tiny_tokenizer(), 4, checkpoint)
    assert torch.equal(
        weights(other), weights(train_model(SETTINGS, rising_blocks(), tiny_tokenizer(), 4))
    )


def test_the_model_has_the_shape_the_settings_and_the_tokenizer_say():
    trained = train_model(SETTINGS, rising_blocks(8), tiny_tokenizer(), seed=0)
    config = trained.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (
        16,
        2,
        len(tiny_tokenizer()),
    )
    assert (config.max_position_embeddings, config.bos_token_id) == (16, 0)
    assert trained.model.lm_head.weight is trained.model.model.embed_tokens.weight
    assert not trained.model.training


def test_the_curve_ends_at_the_last_step_and_token():
    curve = train_model(SETTINGS, rising_blocks(60), tiny_tokenizer(), seed=0).curve
    assert curve.columns == ["step", "tokens", "loss", "learning_rate"]
    assert curve["step"].to_list() == list(range(1, 17))
    assert curve["tokens"][-1] == 2 * 60 * 16


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(step, 100, SETTINGS) for step in range(101)]
    assert rates[0] == pytest.approx(1e-2 / 3)
    assert max(rates) == rates[3] == 1e-2
    assert all(later < earlier for earlier, later in pairwise(rates[3:]))
    assert rates[100] == pytest.approx(0)
    assert learning_rate(0, 1, SETTINGS.model_copy(update={"warmup_steps": 0})) == 1e-2
