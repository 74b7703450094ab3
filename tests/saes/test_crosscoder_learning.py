"""Crosscoders of crosscoder_learning compute what its `encode` and `decode` do, written out here by
hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.saes.io import import_sae, load_crosscoder, save_crosscoder

SOURCES, D_MODEL, D_SAE = 2, 6, 24
draw = torch.Generator().manual_seed(0)
ENCODER = torch.randn(SOURCES, D_MODEL, D_SAE, generator=draw)
DECODER = torch.randn(SOURCES, D_SAE, D_MODEL, generator=draw)
B_ENC = torch.randn(D_SAE, generator=draw)
B_DEC = torch.randn(SOURCES, D_MODEL, generator=draw)
MEAN = torch.randn(SOURCES, D_MODEL, generator=draw)
DEVIATION = 1 + torch.rand(SOURCES, D_MODEL, generator=draw)
X = 2 * torch.randn(50, SOURCES, D_MODEL, generator=draw)
STATE = {
    "encoder.weight": ENCODER,
    "encoder.bias": B_ENC,
    "decoder.weight": DECODER,
    "decoder.bias": B_DEC,
}


def folder(path: Path, name: str, state: dict[str, Any], **trainer: Any) -> Path:
    torch.save(state, path / "ae.pt")
    config = {"dict_class": name, "activation_dim": D_MODEL, "dict_size": D_SAE, **trainer}
    (path / "config.json").write_text(json.dumps({"trainer": config}))
    return path


def relu(x: Tensor) -> Tensor:
    return (torch.einsum("rsd,sdf->rf", x, ENCODER) + B_ENC).clamp(min=0)


def written(latents: Tensor) -> Tensor:
    return torch.einsum("rf,sfd->rsd", latents, DECODER) + B_DEC


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_crosscoder_with_relu_sums_what_its_sources_say(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    crosscoder = load_crosscoder(folder(tmp_path, "CrossCoder", state))
    latents = relu(X)
    lengths = DECODER.square().sum(dim=(0, 2)).sqrt()
    torch.testing.assert_close(crosscoder.encode(X), latents * lengths, rtol=1e-4, atol=1e-4)
    again = crosscoder.decode(crosscoder.encode(X))
    torch.testing.assert_close(again, written(latents), rtol=1e-4, atol=1e-4)
    save_crosscoder(tmp_path / "own", crosscoder)
    assert torch.equal(load_crosscoder(tmp_path / "own").encode(X), crosscoder.encode(X))


@pytest.mark.parametrize(
    ("number", "by_norms"),
    [
        (1, DECODER.norm(dim=2).sum(dim=0)),
        (2, DECODER.square().sum(dim=(0, 2)).sqrt()),
        (3, 0.5 * DECODER.square().sum(dim=(0, 2)).sqrt() + 0.1 * DECODER.norm(dim=2).sum(dim=0)),
        (4, torch.ones(D_SAE)),
        (None, DECODER.norm(dim=2).sum(dim=0)),
    ],
)
def test_batchtopk_holds_values_times_norms_against_its_threshold(
    tmp_path: Path, number: int | None, by_norms: Tensor
) -> None:
    state = {**STATE, "k": torch.tensor(5), "threshold": torch.tensor(3.0)}
    state |= {} if number is None else {"code_normalization_id": torch.tensor(number)}
    crosscoder = load_crosscoder(
        folder(tmp_path, "BatchTopKCrossCoder", state, code_normalization_alpha_sae=0.5)
    )
    latents = relu(X) * (relu(X) * by_norms > 3.0)
    assert 0 < float((latents > 0).float().mean()) < float((relu(X) > 0).float().mean())
    again = crosscoder.decode(crosscoder.encode(X))
    torch.testing.assert_close(again, written(latents), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("together", [True, False])
def test_the_normalisation_of_every_source_is_folded(tmp_path: Path, together: bool) -> None:
    factor = 1.5 / (DEVIATION.square().sum(dim=1) + 1e-8).sqrt()
    read = factor[:, None].expand(SOURCES, D_MODEL) if together else 1 / DEVIATION
    state = {
        **STATE,
        "target_rms": torch.tensor(1.5),
        "activation_mean": MEAN,
        "activation_std": DEVIATION,
        "activation_global_scale": factor if together else torch.ones(SOURCES),
    }
    crosscoder = load_crosscoder(folder(tmp_path, "CrossCoder", state))
    expected = written(relu((X - MEAN) * read)) / read + MEAN
    again = crosscoder.decode(crosscoder.encode(X))
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(crosscoder.scale, DEVIATION.square().sum(dim=1).sqrt())


def test_normalisers_without_numbers_normalise_nothing(tmp_path: Path) -> None:
    absent = torch.full((SOURCES, D_MODEL), float("nan"))
    state = {**STATE, "activation_mean": absent, "activation_std": absent}
    state["activation_global_scale"] = torch.ones(SOURCES)
    crosscoder = load_crosscoder(folder(tmp_path, "CrossCoder", state))
    again = crosscoder.decode(crosscoder.encode(X))
    torch.testing.assert_close(again, written(relu(X)), rtol=1e-4, atol=1e-4)


def test_a_batchtopk_sae_of_normalised_activations_reads_them_as_they_are(tmp_path: Path) -> None:
    factor = 1.0 / (DEVIATION[0].square().sum() + 1e-8).sqrt()
    state = {
        "k": torch.tensor(5),
        "threshold": torch.tensor(0.4),
        "encoder.weight": ENCODER[0].T.contiguous(),
        "encoder.bias": B_ENC,
        "decoder.weight": DECODER[0].T.contiguous(),
        "b_dec": B_DEC[0],
        "target_rms": torch.tensor(1.0),
        "activation_mean": MEAN[0],
        "activation_std": DEVIATION[0],
        "activation_global_scale": factor,
    }
    sae = import_sae(folder(tmp_path, "BatchTopKSAE", state))
    x = X[:, 0]
    values = (((x - MEAN[0]) * factor - B_DEC[0]) @ ENCODER[0] + B_ENC).clamp(min=0)
    values = values * (values > 0.4)
    expected = (values @ DECODER[0] + B_DEC[0]) / factor + MEAN[0]
    torch.testing.assert_close(sae.reconstruct(x), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("BatchTopKCrossCoder", {"k": torch.tensor(5)}, "has learned no threshold"),
        (
            "BatchTopKCrossCoder",
            {"threshold": torch.ones(2), "code_normalization_id": torch.tensor(5)},
            "for every source by itself .*DECOUPLED",
        ),
        ("CrossCoder", {"decoder.bias": B_DEC[:1]}, r"decoder.bias has shape \[1, 6\]"),
        ("CrossCoder", {"encoder.weight": ENCODER[0]}, "it is no crosscoder"),
    ],
)
def test_crosscoders_that_are_not_known_are_refused_in_one_sentence(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    path = folder(tmp_path, name, {**STATE, **changes})
    with pytest.raises(SaeflowError, match=message) as caught:
        load_crosscoder(path)
    assert str(path) in str(caught.value)


def test_a_config_of_another_crosscoder_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, "CrossCoder", STATE, dict_size=2 * D_SAE)
    with pytest.raises(SaeflowError, match=f"dict_size is {2 * D_SAE}, and ae.pt has {D_SAE}"):
        load_crosscoder(path)


def test_a_crosscoder_is_no_sae_and_its_sources_are_asked_for(tmp_path: Path) -> None:
    path = folder(tmp_path, "BatchTopKCrossCoder", STATE)
    with pytest.raises(SaeflowError, match=r"is a crosscoder .*say which \(saes.<name>.hooks or"):
        import_sae(path)
