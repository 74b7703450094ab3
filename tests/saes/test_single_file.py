"""SAEs that are one file: each computes the formula that its authors publish, written out here by
hand, whatever they call the tensors, whichever way round these lie and whatever is wrapped around.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from studies import study_config
from torch import Tensor

from saeflow.config.sae_files import Given, files_of, latents_of, sae_format
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.saes.io import export_sae, import_sae, load_sae, save_sae
from saeflow.saes.placing import placed
from saeflow.saes.sae import SAE

D_MODEL, D_SAE = 6, 24
draw = torch.Generator().manual_seed(0)
ENCODER = torch.randn(D_SAE, D_MODEL, generator=draw)  # as torch.nn.Linear keeps them
DECODER = torch.randn(D_MODEL, D_SAE, generator=draw)
B_ENC, B_DEC = torch.randn(D_SAE, generator=draw), torch.randn(D_MODEL, generator=draw)
THRESHOLD = torch.rand(D_SAE, generator=draw)
SKIP = torch.randn(D_MODEL, D_MODEL, generator=draw)
X = 3 * torch.randn(60, D_MODEL, generator=draw) + 1.5
# What a latent's value is multiplied by, where decoder rows are brought to unit norm.
LENGTHS = DECODER.norm(dim=0)
RESID = "blocks.5.hook_resid_post"


def relu(x: Tensor, subtracted: Tensor | float = 0.0) -> Tensor:
    return ((x - subtracted) @ ENCODER.T + B_ENC).clamp(min=0)


def top(values: Tensor, k: int) -> Tensor:
    kept = values >= values.sort(dim=1, descending=True).values[:, k - 1 : k]
    return (values * kept).clamp(min=0)


def written(latents: Tensor) -> Tensor:
    return latents @ DECODER.T + B_DEC


def linear(prefix: str = "", names: tuple[str, str] = ("encoder", "decoder")) -> dict[str, Tensor]:
    encoder, decoder = names
    return {
        f"{prefix}{encoder}.weight": ENCODER,
        f"{prefix}{encoder}.bias": B_ENC,
        f"{prefix}{decoder}.weight": DECODER,
        f"{prefix}{decoder}.bias": B_DEC,
    }


def plain(turned: bool = False) -> dict[str, Tensor]:
    encoder, decoder = (ENCODER, DECODER) if turned else (ENCODER.T, DECODER.T)
    return {"W_enc": encoder, "W_dec": decoder, "b_enc": B_ENC, "b_dec": B_DEC}


def saved(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        torch.save(content, path)
    return path


def computes(sae: SAE, latents: Tensor, reconstruction: Tensor) -> None:
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(sae.encode(X) * norms, latents * LENGTHS, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.reconstruct(X), reconstruction, rtol=1e-4, atol=1e-4)
    assert 0 < float((latents > 0).float().mean()) < 0.9


# --- what is published ----------------------------------------------------------------------------


def test_qwen_scope_is_topk_of_activations_as_they_are_with_k_in_the_repository_s_name(
    tmp_path: Path,
) -> None:
    repo = tmp_path / "models--Qwen--SAE-Res-Qwen3-1.7B-Base-W32K-L0_5" / "snapshots" / "abc"
    saved(repo / "layer12.sae.pt", plain(turned=True))
    sae = import_sae(saved(repo / "layer5.sae.pt", plain(turned=True)))
    latents = top(X @ ENCODER.T + B_ENC, 5)
    computes(sae, latents, written(latents))
    assert (sae.architecture, sae.k, sae.metadata["hook_name"]) == ("topk", 5, RESID)
    with pytest.raises(SaeflowError, match=r"holds 2 files of weights \(layer12.sae.pt, layer5.s"):
        import_sae(repo)


def test_qwen_scope_away_from_its_repository_asks_for_its_k(tmp_path: Path) -> None:
    path = saved(tmp_path / "layer5.sae.pt", plain(turned=True))
    with pytest.raises(SaeflowError, match=r"layer5.sae.pt: is a TopK SAE.*give k \(saes"):
        import_sae(path)
    latents = top(X @ ENCODER.T + B_ENC, 4)
    computes(import_sae(path, given=Given(k=4)), latents, written(latents))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Llama-3.1-8B-Instruct-SAE-l5.pth", ("encoder_linear", "decoder_linear")),  # Goodfire
        ("DeepSeek-R1-Distill-Llama-8B-SAE-l5.pt", ("encoder", "decoder")),  # qresearch
    ],
)
def test_goodfire_and_qresearch_read_activations_as_they_are(
    tmp_path: Path, name: str, names: tuple[str, str]
) -> None:
    sae = import_sae(saved(tmp_path / name, linear(names=names)))
    computes(sae, relu(X), written(relu(X)))
    assert placed(sae, RESID).metadata["hook_name"] == RESID
    with pytest.raises(SaeflowError, match="reads layer_5"):
        placed(sae, "blocks.6.hook_resid_post")


def openai(**activation: Any) -> dict[str, Any]:
    return {
        "pre_bias": B_DEC,
        "latent_bias": B_ENC,
        "encoder.weight": ENCODER,
        "decoder.weight": DECODER,
        "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
        "latents_activation_frequency": torch.ones(D_SAE),
        "latents_mean_square": torch.zeros(D_SAE),
        **activation,
    }


def test_openai_s_first_autoencoders_subtract_their_bias(tmp_path: Path) -> None:
    path = tmp_path / "resid_delta_mlp_v4" / "autoencoders" / "5.pt"
    sae = import_sae(saved(path, openai(activation="ReLU", activation_state_dict={})))
    latents = relu(X, subtracted=B_DEC)
    computes(sae, latents, written(latents))
    assert sae.metadata["hook_name"] == "blocks.5.hook_mlp_out"


def test_openai_s_topk_autoencoders_work_on_layer_normed_activations(tmp_path: Path) -> None:
    top_k = {"activation": "TopK", "activation_state_dict": {"k": 4, "postact_fn": "ReLU"}}
    path = tmp_path / "resid_post_attn_v5_32k" / "autoencoders" / "8.pt"
    sae = import_sae(saved(path, openai(**top_k)))
    mean = X.mean(dim=1, keepdim=True)
    deviation = (X - mean).square().sum(dim=1, keepdim=True).div(D_MODEL - 1).sqrt()
    normed = (X - mean) / (deviation + 1e-5)
    latents = top((normed - B_DEC) @ ENCODER.T + B_ENC, 4)
    expected = written(latents) * deviation + mean
    computes(sae, latents, expected)
    assert sae.metadata["hook_name"] == "blocks.8.hook_resid_mid"
    # and so it does out of a study's own folder
    save_sae(tmp_path / "own", sae)
    assert json.loads((tmp_path / "own" / "cfg.json").read_text())["normalize_activations"] == (
        "layer_norm"
    )
    computes(load_sae(tmp_path / "own"), latents, expected)
    with pytest.raises(SaeflowError, match=r"normalises each token's activation .*use saelens"):
        export_sae(tmp_path / "other", sae, "sparsify")


def test_circuit_tracer_s_transcoders_say_their_place_beside_all_layers(tmp_path: Path) -> None:
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model_name": "Qwen/Qwen3-4B", **hooks}))
    tensors = {"W_enc": ENCODER, "W_dec": DECODER.T, "b_enc": B_ENC, "b_dec": B_DEC}
    for layer in (4, 5):
        saved(tmp_path / f"layer_{layer}.safetensors", {**tensors, "W_skip": SKIP})
    sae = import_sae(tmp_path / "layer_5.safetensors")
    computes(sae, relu(X), written(relu(X)) + X @ SKIP.T)
    at = placed(sae, "blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out")
    assert at.metadata["model_name"] == "Qwen/Qwen3-4B"
    with pytest.raises(SaeflowError, match=r"reads blocks\.5\.mlp\.hook_in"):
        placed(sae, "blocks.4.mlp.hook_in", "blocks.4.hook_mlp_out")


def test_a_transcoder_of_circuit_tracer_without_its_config_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {"W_enc": ENCODER, "W_dec": DECODER.T, "b_enc": B_ENC, "b_dec": B_DEC}
    sae = import_sae(saved(tmp_path / "layer_5.safetensors", tensors))
    assert "says what it writes; give target (saes.<name>.target)" in capsys.readouterr().err
    at = placed(sae, "blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out")
    assert at.metadata["hook_name_out"] == "blocks.5.hook_mlp_out"
    computes(at, relu(X), written(relu(X)))


def test_kissane_s_settings_beside_say_place_and_subtraction(tmp_path: Path) -> None:
    stem = "gpt2-small_L5_Hcat_z_lr1.20e-03_l11.80e+00_ds24_bs4096"
    settings = {
        "act_size": D_MODEL,
        "dict_size": D_SAE,
        "act_name": "blocks.5.attn.hook_z",
        "l1_coeff": 1.8,
        "model_name": "gpt2-small",
    }
    (tmp_path / f"{stem}_cfg.json").write_text(json.dumps(settings))
    sae = import_sae(saved(tmp_path / f"{stem}.pt", plain()))
    latents = relu(X, subtracted=B_DEC)
    computes(sae, latents, written(latents))
    assert sae.metadata["hook_name"] == "blocks.5.attn.hook_z"
    assert files_of({f"{stem}.pt", f"{stem}_cfg.json", "README.md"}, file=f"{stem}.pt") == [
        f"{stem}.pt",
        f"{stem}_cfg.json",
    ]


# --- what a stranger's file may look like ---------------------------------------------------------


def wrapped(tensors: dict[str, Tensor], wrapper: str) -> dict[str, Any]:
    return {wrapper: tensors, "epoch": 3, "optimizer": {"state": {}, "lr": 1e-3}}


@pytest.mark.parametrize(
    "content",
    [
        linear(),
        linear("module."),
        linear("_orig_mod.module."),
        wrapped(linear(), "state_dict"),
        wrapped(linear("sae."), "model"),
        wrapped(linear("model."), "model_state_dict"),
        wrapped(wrapped(linear(), "state_dict"), "sae"),
        {**linear("module."), "step": torch.tensor(7)},
        {"optimizer": {"state": {0: {"exp_avg": ENCODER}}}, "network": linear()},
        {"model": {"lm_head.weight": SKIP}, "sae": linear()},
        {**linear(), "num_batches_not_active": torch.zeros(D_SAE), "step": torch.tensor(7)},
        {"W_E": ENCODER, "W_D": DECODER.T, "b_E": B_ENC, "b_D": B_DEC},
        {"w_enc": ENCODER.T, "w_dec": DECODER, "b_enc": B_ENC, "b_dec": B_DEC},
        {"encoder.W": ENCODER.T, "decoder.W": DECODER.T, "encoder.b": B_ENC, "decoder.b": B_DEC},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_names_prefixes_and_wrappers_change_nothing(
    tmp_path: Path, content: dict[str, Any], suffix: str
) -> None:
    path = saved(tmp_path / f"sae{suffix}", content)
    computes(import_sae(path), relu(X), written(relu(X)))
    computes(import_sae(tmp_path), relu(X), written(relu(X)))  # the folder's only file


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize(("encoder", "decoder"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_matrix_is_read_the_way_round_that_fits(
    tmp_path: Path, encoder: int, decoder: int, suffix: str
) -> None:
    content = {
        **plain(),
        "W_enc": (ENCODER, ENCODER.T)[encoder],
        "W_dec": (DECODER, DECODER.T)[decoder],
    }
    path = saved(tmp_path / f"sae{suffix}", content)
    computes(import_sae(path), relu(X), written(relu(X)))


def test_square_matrices_lie_as_their_names_say(tmp_path: Path) -> None:
    square = {"encoder.weight": SKIP, "decoder.weight": SKIP + 1, "encoder.bias": B_DEC}
    sae = import_sae(saved(tmp_path / "sae.pt", square))
    expected = (X @ SKIP.T + B_DEC).clamp(min=0) @ (SKIP + 1).T
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    other = {"W_enc": SKIP.T, "W_dec": (SKIP + 1).T, "b_enc": B_DEC}
    assert torch.equal(
        import_sae(saved(tmp_path / "other.pt", other)).reconstruct(X), sae.reconstruct(X)
    )


def test_square_matrices_of_a_known_publisher_lie_as_theirs_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {"W_enc": SKIP, "W_dec": SKIP + 1, "b_enc": B_DEC}
    latents = (X @ SKIP.T + B_DEC).clamp(min=0)
    qwen = import_sae(saved(tmp_path / "layer5.sae.pt", tensors), given=Given(k=D_MODEL))
    expected = latents @ (SKIP + 1).T
    torch.testing.assert_close(qwen.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(hooks))
    tracer = import_sae(saved(tmp_path / "layer_5.safetensors", tensors))
    expected = latents @ (SKIP + 1)
    torch.testing.assert_close(tracer.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    assert not capsys.readouterr().err
    import_sae(saved(tmp_path / "other" / "sae.pt", tensors))  # nobody's: what is taken is told
    assert "W_enc is square, so that its shape does not tell which" in capsys.readouterr().err


def test_an_encoder_without_decoder_writes_through_its_transpose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, tensors in (
        ("linear", {"encoder.weight": ENCODER, "encoder.bias": B_ENC}),
        ("plain", {"W_enc": ENCODER.T, "b_enc": B_ENC}),
    ):
        sae = import_sae(saved(tmp_path / name / "sae.pt", tensors))
        torch.testing.assert_close(sae.reconstruct(X), relu(X) @ ENCODER, rtol=1e-4, atol=1e-4)
        assert "the encoder's transpose is taken for it" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_in_bfloat16_is_computed_with_in_full(tmp_path: Path, suffix: str) -> None:
    half = {name: tensor.bfloat16() for name, tensor in linear().items()}
    sae = import_sae(saved(tmp_path / f"sae{suffix}", half))
    encoder, b_enc = half["encoder.weight"].float(), half["encoder.bias"].float()
    decoder, b_dec = half["decoder.weight"].float(), half["decoder.bias"].float()
    expected = (X @ encoder.T + b_enc).clamp(min=0) @ decoder.T + b_dec
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


def test_vectors_may_be_rows_or_columns_of_a_matrix(tmp_path: Path) -> None:
    content = {**plain(), "b_enc": B_ENC[None], "b_dec": B_DEC[:, None]}
    content["threshold"] = THRESHOLD[None]
    values = relu(X) * (relu(X) > THRESHOLD)
    computes(import_sae(saved(tmp_path / "sae.pt", content)), values, written(values))


def test_settings_in_the_header_of_a_safetensors_file_are_read(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in plain().items()}
    said = {"activation": "topk", "k": "5", "cfg": json.dumps({"hook_name": RESID})}
    save_file(tensors, tmp_path / "sae.safetensors", metadata=said)
    sae = import_sae(tmp_path)
    latents = top(X @ ENCODER.T + B_ENC, 5)
    computes(sae, latents, written(latents))
    assert sae.metadata["hook_name"] == RESID


def test_a_file_that_says_no_activation_function_is_told_to_be_read_with_relu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_sae(saved(tmp_path / "sae.pt", plain()))
    assert "does not say its activation function and is read with ReLU" in capsys.readouterr().err
    import_sae(saved(tmp_path / "goodfire.pt", linear(names=("encoder_linear", "decoder_linear"))))
    assert not capsys.readouterr().err


def test_biases_that_are_absent_are_zero(tmp_path: Path) -> None:
    sae = import_sae(saved(tmp_path / "sae.pt", {"W_enc": ENCODER, "W_dec": DECODER}))
    expected = (X @ ENCODER.T).clamp(min=0) @ DECODER.T
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "latents"),
    [
        ({**plain(), "threshold": THRESHOLD}, lambda pre: pre * (pre > THRESHOLD)),
        ({**plain(), "log_threshold": THRESHOLD.log()}, lambda pre: pre * (pre > THRESHOLD)),
        ({**plain(), "threshold": torch.tensor(0.7)}, lambda pre: pre * (pre > 0.7)),
        ({**plain(), "k": torch.tensor(5), "threshold": torch.tensor(0.7)}, None),
        ({**plain(), "k": torch.tensor(5)}, lambda pre: top(pre, 5)),
        ({**plain(), "k": torch.tensor(5), "threshold": torch.tensor(-1.0)}, lambda p: top(p, 5)),
        (
            {"state_dict": plain(), "cfg": {"activation_fn": "topk", "top_k": 5}},
            lambda p: top(p, 5),
        ),
        ({"model": plain(), "activation": "topk", "k": torch.tensor(5)}, lambda p: top(p, 5)),
        ({"model": plain(), "hparams": {"activation_fn": "TopK(5)"}}, lambda pre: top(pre, 5)),
        ({"model": plain(), "hparams": {"activation": "torch.nn.ReLU()"}}, lambda pre: pre),
        (
            {"state_dict": plain(), "config": {"act_fn": "jumprelu"}, "b": 1},
            "give one (saes.<name>",
        ),
    ],
)
def test_tensors_and_settings_tell_the_activation_function(
    tmp_path: Path, content: dict[str, Any], latents: Callable[[Tensor], Tensor] | str | None
) -> None:
    path = saved(tmp_path / "sae.pt", content)
    if isinstance(latents, str):
        with pytest.raises(SaeflowError, match=latents.replace("(", r"\(")):
            import_sae(path)
        return
    own = latents or (lambda pre: pre * (pre > 0.7))  # BatchTopK by the threshold of its training
    values = own(X @ ENCODER.T + B_ENC).clamp(min=0)
    computes(import_sae(path), values, written(values))


def test_a_gated_dictionary_without_its_config_subtracts_its_bias(tmp_path: Path) -> None:
    gated = {
        "encoder.weight": ENCODER,
        "decoder.weight": DECODER,
        "decoder_bias": B_DEC,
        "r_mag": THRESHOLD,
        "gate_bias": B_ENC,
        "mag_bias": B_ENC / 2,
    }
    pre = (X - B_DEC) @ ENCODER.T
    values = (pre + B_ENC > 0) * (pre * THRESHOLD.exp() + B_ENC / 2).clamp(min=0)
    computes(import_sae(saved(tmp_path / "sae.pt", gated)), values, written(values))


@pytest.mark.parametrize(
    "content",
    [
        {
            "bias": B_DEC,
            "encoder.weight": ENCODER,
            "encoder.bias": B_ENC,
            "decoder.weight": DECODER,
        },
        {"b_dec": B_DEC, "encoder.weight": ENCODER, "encoder.bias": B_ENC, "W_dec": DECODER.T},
        {"state_dict": plain(), "cfg": {"apply_b_dec_to_input": True}},
    ],
)
def test_names_and_settings_tell_whether_the_bias_is_subtracted(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    latents = relu(X, subtracted=B_DEC)
    computes(import_sae(saved(tmp_path / "sae.pt", content)), latents, written(latents))


def test_a_transcoder_may_subtract_one_bias_and_add_another(tmp_path: Path) -> None:
    path = saved(tmp_path / "sae.pt", {**plain(), "b_dec_out": B_DEC + 1})
    latents = relu(X, subtracted=B_DEC)
    computes(import_sae(path), latents, written(latents) + 1)


def test_a_transcoder_between_widths_writes_its_own(tmp_path: Path) -> None:
    wide = torch.randn(9, D_SAE, generator=torch.Generator().manual_seed(1))
    sae = import_sae(saved(tmp_path / "sae.pt", {**plain(), "W_dec": wide, "b_dec": torch.ones(9)}))
    torch.testing.assert_close(sae.reconstruct(X), relu(X) @ wide.T + 1, rtol=1e-4, atol=1e-4)
    assert sae.is_transcoder


# --- what only the user knows ---------------------------------------------------------------------


def test_what_is_given_is_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = saved(tmp_path / "sae.pt", plain())
    scaled = (X * 0.2 @ ENCODER.T + B_ENC).clamp(min=0)
    sae = import_sae(path, given=Given(scale=0.2))
    torch.testing.assert_close(sae.reconstruct(X), written(scaled) / 0.2, rtol=1e-4, atol=1e-4)
    latents = top(X @ ENCODER.T + B_ENC, 3)
    computes(import_sae(path, given=Given(k=3)), latents, written(latents))
    pre = relu(X)
    computes(
        import_sae(path, given=Given(threshold=0.7)), pre * (pre > 0.7), written(pre * (pre > 0.7))
    )
    latents = relu(X, subtracted=B_DEC)
    computes(import_sae(path, given=Given(apply_b_dec_to_input=True)), latents, written(latents))


@pytest.mark.parametrize(
    ("given", "content", "message"),
    [
        (Given(k=3), {**plain(), "k": torch.tensor(5)}, "says itself that k is 5, not 3"),
        (Given(threshold=0.1), {**plain(), "threshold": THRESHOLD}, "says its thresholds itself"),
        (
            Given(apply_b_dec_to_input=False),
            {"state_dict": plain(), "cfg": {"apply_b_dec_to_input": True}},
            "says itself that apply_b_dec_to_input is True",
        ),
        (
            Given(scale=0.2),
            {"state_dict": plain(), "cfg": {"normalize_activations": "layer_norm"}},
            "normalises each token's activation .*remove scale",
        ),
        (Given(threshold=0.1), {**plain(), "k": torch.tensor(5)}, "read with TopK.* no threshold"),
        (Given(k=3, threshold=0.1), plain(), "is read with TopK, which has no threshold"),
        (Given(k=3), {**plain(), "threshold": THRESHOLD}, "is read with JumpReLU, which has no k"),
        (Given(k=3), {"model": plain(), "cfg": {"activation": "relu"}}, "read with ReLU.* no k"),
    ],
)
def test_what_contradicts_the_file_is_refused(
    tmp_path: Path, given: Given, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(SaeflowError, match=message):
        import_sae(saved(tmp_path / "sae.pt", content), given=given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": plain(), "cfg": {"activation": "gelu"}},
            "function 'gelu' is not known here",
        ),
        (
            {"state_dict": plain(), "cfg": {"normalize_activations": "whiten"}},
            r"normalises its input \('whiten'\) .*give what .*\(saes.<name>.scale\)",
        ),
        ({**plain(), "scaling_factor": THRESHOLD}, "scaling_factor that is not one"),
        (
            {"D": DECODER, "E": ENCODER, "b": B_DEC},
            "has no encoder under a name that is known here",
        ),
        ({**plain(), "attn_layers.0.weight": SKIP}, "is a temporal SAE"),
        ({**plain(), "rotation": SKIP}, "holds rotation, and what an SAE computes with that"),
        ({**plain(), "encoder.weight": ENCODER}, "has both W_enc and encoder.weight"),
        ({**plain(), "W_dec": torch.zeros(D_SAE, 3, D_MODEL)}, "is a cross-layer transcoder or a"),
        ({**plain(), "W_dec": DECODER[:, :-1]}, r"W_dec has shape \[6, 23\], and there are 24"),
        ({**plain(), "b_dec": B_ENC}, r"b_dec has shape \[24\]"),
        ({**plain(), "b_enc": torch.zeros(5)}, "biases are of 5 latents"),
        (
            {"state_dict": plain(), "cfg": {"dict_size": 48}},
            "settings say that dict_size is 48, and its tensors are of 24 latents",
        ),
        (
            {"state_dict": plain(), "cfg": {"act_size": 12}},
            "settings say that act_size is 12, and its tensors are of 6 numbers that are read",
        ),
        (
            {"state_dict": plain(), "cfg": {"architecture": "matching_pursuit"}},
            "architecture 'matching_pursuit' is not known here",
        ),
        ({**plain(), "W_enc": ENCODER.long()}, "holds numbers of type int64"),
        ({**plain(), "b_enc": B_ENC * float("nan")}, "not finite"),
        ({"epoch": 3}, "is no dictionary of tensors"),
        ([ENCODER], "is no dictionary of tensors"),
    ],
)
def test_what_is_not_known_is_told_in_one_sentence_that_names_the_file(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = saved(tmp_path / "sae.pt", content)
    with pytest.raises(SaeflowError, match=message) as caught:
        import_sae(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def refused_releases(folder: Path) -> dict[str, tuple[Path, str]]:
    """Folders as their authors publish them, and what is said of each."""
    wide = torch.zeros(D_SAE, 3, D_MODEL)
    clt, scope = folder / "clt-gemma-2-2b-2.5M", folder / "gemma-scope-2-clt"
    for layer in (0, 1):
        part = {f"W_enc_{layer}": ENCODER, f"b_enc_{layer}": B_ENC, f"b_dec_{layer}": B_DEC}
        saved(clt / f"W_enc_{layer}.safetensors", part)
        saved(clt / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": wide})
        saved(scope / f"params_layer_{layer}.safetensors", {"w_enc": ENCODER.T, "w_dec": wide})
    temporal = saved(
        folder / "temporal" / "latest_ckpt.safetensors",
        {"D": DECODER.T, "E": ENCODER, "b": B_DEC, "attn_layers.0.weight": SKIP},
    ).parent
    pursuit = saved(folder / "pursuit" / "sae_weights.safetensors", plain()).parent
    config = {"architecture": "matching_pursuit", "d_in": D_MODEL, "d_sae": D_SAE}
    config |= {"metadata": {"sae_lens_version": "6.30.0"}}
    (pursuit / "cfg.json").write_text(json.dumps(config))
    groups = saved(folder / "layers.5" / "sae.safetensors", {**linear(), "W_dec": DECODER.T}).parent
    config = {"activation": "groupmax", "num_latents": D_SAE, "k": 4, "d_in": D_MODEL}
    (groups / "cfg.json").write_text(json.dumps(config))
    return {
        "cross-layer transcoder": (clt, "holds a cross-layer transcoder or a crosscoder"),
        "its one layer": (clt / "W_dec_0.safetensors", "cross-layer transcoder"),
        "Gemma Scope 2": (scope, "holds a cross-layer transcoder or a crosscoder"),
        "its one file": (scope / "params_layer_0.safetensors", "cross-layer transcoder or a"),
        "temporal": (temporal, "is a temporal SAE, whose latents depend on the tokens before"),
        "matching pursuit": (pursuit, "architecture 'matching_pursuit' is not known here"),
        "GroupMax": (groups, "activation function 'groupmax' is not known here"),
    }


def test_a_folder_that_no_sae_can_be_read_from_is_refused_with_the_config(tmp_path: Path) -> None:
    saved(tmp_path / "several" / "layer5.sae.pt", plain(turned=True))
    saved(tmp_path / "several" / "layer6.sae.pt", plain(turned=True))
    clt, message = refused_releases(tmp_path)["cross-layer transcoder"]
    odd = saved(tmp_path / "odd" / "sae.pt", {"D": DECODER, "E": ENCODER, "b": B_DEC}).parent
    for path, said in (
        (tmp_path / "several", r"holds 2 files of weights \(layer5.sae.pt, layer6.sae.pt\)"),
        (clt, message),
        (odd, "has no encoder under a name that is known here"),
    ):
        config = study_config("minimal-text", {"saes.main": {"path": str(path)}})
        with pytest.raises(SaeflowError, match=rf"saes.main.path: .*{said}"):
            check_any_study(config)


def test_weights_that_are_split_over_files_are_not_read_by_half(tmp_path: Path) -> None:
    first, second = (f"sae-0000{part}-of-00002.safetensors" for part in (1, 2))
    saved(tmp_path / first, {"W_enc": ENCODER, "b_enc": B_ENC})
    saved(tmp_path / second, {"W_dec": DECODER, "b_dec": B_DEC})
    for path in (tmp_path, tmp_path / first):
        with pytest.raises(SaeflowError, match="weights that are split over several files"):
            import_sae(path)


def test_releases_that_are_refused_are_refused_in_one_sentence(tmp_path: Path) -> None:
    said = []
    for path, message in refused_releases(tmp_path).values():
        with pytest.raises(SaeflowError, match=message) as caught:
            import_sae(path)
        said.append(str(caught.value))
        assert "\n" not in said[-1]
        assert str(path) in said[-1]
    page = (Path(__file__).parents[2] / "docs" / "sae-formats.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|") and "refused: " in line]
    sentences = re.findall(r"refused: “(.+?)”", "\n".join(rows))
    assert len(sentences) == len(rows) == 5
    assert all(any(sentence in each for each in said) for sentence in sentences)


def test_tensors_that_count_for_nothing_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {**plain(), "mystery": torch.zeros(3), "stats_last_nonzero": torch.zeros(D_SAE)}
    computes(import_sae(saved(tmp_path / "sae.pt", content)), relu(X), written(relu(X)))
    said = capsys.readouterr().err
    assert "mystery is left out, as unknown here" in said
    assert "stats" not in said
    content = {"state_dict": plain(), "activation_mean": torch.zeros(D_MODEL)}
    import_sae(saved(tmp_path / "beside.pt", content))
    assert "activation_mean is left out, as unknown here" in capsys.readouterr().err


class Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("read", [import_sae, latents_of])
def test_a_file_that_holds_code_is_refused_and_not_run(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    torch.save({**plain(), "cfg": Opens(tmp_path / "ran")}, tmp_path / "sae.pt")
    with pytest.raises(SaeflowError, match="holds more than tensors"):
        read(tmp_path / "sae.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("read", [import_sae, latents_of])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    path = saved(tmp_path / "sae.pt", plain())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SaeflowError, match=r"sae.pt: .*get it again"):
        read(path)
    buffer = io.BytesIO()
    pickle.dump({"W_enc": 3}, buffer)
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("odd/data.pkl", buffer.getvalue()[:-3])
    with pytest.raises(SaeflowError, match=r"odd\.pt"):
        read(tmp_path / "odd.pt")


# --- counted without loading anything -------------------------------------------------------------


def test_latents_are_counted_from_headers_without_torch(tmp_path: Path) -> None:
    contents = {
        "openai": openai(activation="ReLU", activation_state_dict={}),
        "wrapped": wrapped(linear("module."), "state_dict"),
        "qwen": plain(turned=True),
        "parameters": {name: torch.nn.Parameter(value) for name, value in linear().items()},
    }
    for name, content in contents.items():
        saved(tmp_path / name / "sae.pt", content)
    saved(tmp_path / "safe" / "sae.safetensors", plain())
    saved(tmp_path / "numpy" / "sae.npz", plain())
    program = f"""
import sys
from pathlib import Path
from saeflow.config.sae_files import latents_of
for folder in sorted(Path({str(tmp_path)!r}).iterdir()):
    assert latents_of(folder) == {D_SAE}, folder
    assert latents_of(next(folder.iterdir())) == {D_SAE}, folder
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_file_of_a_format_with_several_is_read_with_the_others(tmp_path: Path) -> None:
    config = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.5.output"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = saved(
        tmp_path / "params.safetensors",
        {**{name.lower(): tensor for name, tensor in plain().items()}, "threshold": THRESHOLD},
    )
    assert sae_format(path) == "gemma_scope_2"
    assert import_sae(path).metadata["hf_hook_name"] == "model.layers.5.output"
    assert files_of({"params.safetensors", "config.json"}, file="params.safetensors") == [
        "config.json",
        "params.safetensors",
    ]
