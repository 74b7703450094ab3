"""SAEs whose files leave to a registry what they compute: the config says it, and they compute what
their authors publish; and normalisations that differ from token to token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from saeflow.config import sections
from saeflow.config.sae_files import Given
from saeflow.errors import SaeflowError
from saeflow.saes.io import import_sae, load_sae, save_sae
from saeflow.saes.placing import placed

D_MODEL, D_SAE = 6, 24
draw = torch.Generator().manual_seed(0)
W_ENC, W_DEC = (
    torch.randn(D_MODEL, D_SAE, generator=draw),
    torch.randn(D_SAE, D_MODEL, generator=draw),
)
W_DEC /= W_DEC.norm(dim=1, keepdim=True)
B_ENC, B_DEC = torch.randn(D_SAE, generator=draw), torch.randn(D_MODEL, generator=draw)
THRESHOLD = torch.rand(D_SAE, generator=draw)
X = 3 * torch.randn(60, D_MODEL, generator=draw) + 1
HOOK = "blocks.5.hook_resid_post"
PLAIN = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
BEFORE_6 = {"d_in": D_MODEL, "d_sae": D_SAE, "dtype": "torch.float32", "hook_point": HOOK}
LINEAR = {
    "encoder.weight": W_ENC.T.contiguous(),
    "encoder.bias": B_ENC,
    "decoder.weight": W_DEC.T.contiguous(),
}


def folder(path: Path, config: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> Path:
    (path / "cfg.json").write_text(json.dumps(config))
    save_file(tensors or PLAIN, path / "sae_weights.safetensors")
    return path


def subtracting(x: Tensor) -> Tensor:
    """SAELens before version 6 by default."""
    return ((x - B_DEC) @ W_ENC + B_ENC).clamp(min=0) @ W_DEC + B_DEC


@pytest.mark.parametrize("said", [True, "expected_average_only_in"])
def test_the_factor_of_saelens_registry_is_given_in_the_config(tmp_path: Path, said: Any) -> None:
    path = folder(tmp_path, {**BEFORE_6, "normalize_activations": said})
    with pytest.raises(SaeflowError, match=r"by a number that is not in the file.*give it \(saes"):
        import_sae(path)
    sae = import_sae(path, given=Given(scale=0.2138))
    expected = subtracting(X * 0.2138) / 0.2138
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("said", [None, False, "none", "None"])
def test_no_normalisation_before_version_6_is_none(tmp_path: Path, said: Any) -> None:
    sae = import_sae(folder(tmp_path, {**BEFORE_6, "normalize_activations": said}))
    torch.testing.assert_close(sae.reconstruct(X), subtracting(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", [None, "standard", "topk"])
def test_topk_from_before_version_6_keeps_the_largest_values(
    tmp_path: Path, architecture: str | None
) -> None:
    config = {**BEFORE_6, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    config |= {"architecture": architecture} if architecture else {}
    ones = {**PLAIN, "scaling_factor": torch.ones(D_SAE)}
    values = (X - B_DEC) @ W_ENC + B_ENC
    kept = values >= values.sort(dim=1, descending=True).values[:, 2:3]
    expected = (values * kept).clamp(min=0) @ W_DEC + B_DEC
    sae = import_sae(folder(tmp_path, config, ones))
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


def test_an_architecture_with_the_function_of_another_is_refused(tmp_path: Path) -> None:
    config = {**BEFORE_6, "architecture": "jumprelu", "activation_fn_str": "topk", "k": 3}
    with pytest.raises(SaeflowError, match="architecture 'jumprelu with topk' is not known here"):
        import_sae(folder(tmp_path, config, {**PLAIN, "threshold": THRESHOLD}))


def test_a_matrix_that_no_config_speaks_of_is_refused_and_a_vector_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SaeflowError, match="holds W_skip, of which its config says nothing"):
        import_sae(folder(tmp_path, BEFORE_6, {**PLAIN, "W_skip": torch.eye(D_MODEL)}))
    counted = {"num_batches_not_active": THRESHOLD}
    import_sae(folder(tmp_path, BEFORE_6, {**PLAIN, **counted}))
    assert "left out" not in capsys.readouterr().err
    import_sae(folder(tmp_path, BEFORE_6, {**PLAIN, "threshold": THRESHOLD}))
    assert "threshold is left out" in capsys.readouterr().err
    path = dictionary(tmp_path, "AutoEncoderTopK", {"rotation": torch.eye(D_MODEL)}, k=3)
    (path / "cfg.json").unlink()
    with pytest.raises(SaeflowError, match="holds rotation, of which its config says nothing"):
        import_sae(path)


def normed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(dim=1, keepdim=True)
    deviation = ((x - mean).square().sum(dim=1, keepdim=True) / (D_MODEL - 1)).sqrt()
    return (x - mean) / (deviation + 1e-5), deviation, mean


@pytest.mark.parametrize("by_config", [True, False])
def test_layer_normed_activations_are_rebuilt_in_their_own_units(
    tmp_path: Path, by_config: bool
) -> None:
    config = {**BEFORE_6, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    config |= {"normalize_activations": "layer_norm"} if by_config else {}
    given = Given() if by_config else Given(normalize_activations="layer_norm")
    sae = import_sae(folder(tmp_path, config), given=given)
    inside, deviation, mean = normed(X)
    pre = (inside - B_DEC) @ W_ENC + B_ENC
    kept = (pre * (pre >= pre.sort(dim=1, descending=True).values[:, 3:4])).clamp(min=0)
    expected = (kept @ W_DEC + B_DEC) * deviation + mean
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.encode(X), kept, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.reconstruct(X, sae.encode(X)), expected, rtol=1e-4, atol=1e-4)


def test_activations_of_one_norm_are_rebuilt_in_their_own_units(tmp_path: Path) -> None:
    """JoshEngels' SAEs of Mistral, whose normalisation only SAELens' registry knows."""
    path = folder(tmp_path, BEFORE_6)
    sae = import_sae(path, given=Given(normalize_activations="constant_norm_rescale"))
    factor = D_MODEL**0.5 / X.norm(dim=1, keepdim=True)
    expected = subtracting(X * factor) / factor
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    save_sae(tmp_path / "own", sae)
    again = load_sae(tmp_path / "own").reconstruct(X)
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)
    assert sae.reconstruct(torch.zeros(1, D_MODEL)).isfinite().all()


def test_a_config_that_names_no_version_has_the_defaults_of_before_6(tmp_path: Path) -> None:
    config = {
        "architecture": "standard",
        "d_in": D_MODEL,
        "d_sae": D_SAE,
        "normalize_activations": "none",
    }
    for added in ({}, {"metadata": {"hook_name": HOOK}}, {"sae_lens_version": "5.9.1"}):
        sae = import_sae(folder(tmp_path, {**config, **added}))
        torch.testing.assert_close(sae.reconstruct(X), subtracting(X), rtol=1e-4, atol=1e-4)


def test_a_logarithm_of_thresholds_is_read_as_thresholds(tmp_path: Path) -> None:
    tensors = {**PLAIN, "log_threshold": THRESHOLD.log()}
    sae = import_sae(folder(tmp_path, {**BEFORE_6, "architecture": "jumprelu"}, tensors))
    pre = (X - B_DEC) @ W_ENC + B_ENC
    expected = (pre * (pre > THRESHOLD)) @ W_DEC + B_DEC
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


def test_a_factor_of_latents_that_the_config_is_silent_about_is_refused(tmp_path: Path) -> None:
    tensors = {**PLAIN, "scaling_factor": THRESHOLD}
    with pytest.raises(SaeflowError, match="holds a scaling_factor that is not one"):
        import_sae(folder(tmp_path, BEFORE_6, tensors))


def dictionary(path: Path, name: str, state: dict[str, Tensor], **trainer: Any) -> Path:
    torch.save({**LINEAR, "b_dec": B_DEC, **state}, path / "ae.pt")
    config = {"dict_class": name, "activation_dim": D_MODEL, "dict_size": D_SAE, **trainer}
    (path / "config.json").write_text(json.dumps({"trainer": config}))
    return path


def test_batchtopk_without_a_threshold_takes_the_one_that_is_given(tmp_path: Path) -> None:
    """What the library's batch of these very rows keeps, it keeps by their least value."""
    path = dictionary(tmp_path, "BatchTopKSAE", {}, k=5)
    with pytest.raises(SaeflowError, match=r"has no threshold.*give it \(saes.<name>.threshold\)"):
        import_sae(path)
    values = ((X - B_DEC) @ W_ENC + B_ENC).clamp(min=0)
    ranked = values.flatten().sort(descending=True).values
    least, beyond = float(ranked[5 * len(X) - 1]), float(ranked[5 * len(X)])
    sae = import_sae(path, given=Given(threshold=(least + beyond) / 2))
    expected = (values * (values >= least)) @ W_DEC + B_DEC
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)


def test_topk_whose_files_do_not_say_k_takes_the_one_that_is_given(tmp_path: Path) -> None:
    path = dictionary(tmp_path, "AutoEncoderTopK", {})
    with pytest.raises(SaeflowError, match=r"does not say its k; give it \(saes.<name>.k\)"):
        import_sae(path)
    assert import_sae(path, given=Given(k=4)).k == 4
    with pytest.raises(SaeflowError, match="says another k itself"):
        import_sae(dictionary(tmp_path, "AutoEncoderTopK", {}, k=5), given=Given(k=4))


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"k": 5}, "ae.pt: says that k is 4, and config.json that it is 5; get the two"),
        ({"k": 4, "dict_size": 48}, "config.json says that dict_size is 48, and ae.pt has 24"),
        ({"k": 4, "activation_dim": 7}, "says that activation_dim is 7, and ae.pt has 6"),
    ],
)
def test_a_config_of_other_weights_is_refused(
    tmp_path: Path, trainer: dict[str, int], message: str
) -> None:
    path = dictionary(tmp_path, "AutoEncoderTopK", {"k": torch.tensor(4)}, **trainer)
    with pytest.raises(SaeflowError, match=message):
        import_sae(path)


def test_k_and_threshold_may_be_rows_of_one_number(tmp_path: Path) -> None:
    path = dictionary(tmp_path, "AutoEncoderTopK", {"k": torch.tensor([4])})
    assert import_sae(path).k == 4
    path = dictionary(tmp_path, "BatchTopKSAE", {"threshold": torch.tensor([0.7])})
    pre = ((X - B_DEC) @ W_ENC + B_ENC).clamp(min=0)
    expected = (pre * (pre > 0.7)) @ W_DEC + B_DEC
    torch.testing.assert_close(import_sae(path).reconstruct(X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_prefixes_of_a_dictionary_s_tensors_change_nothing(tmp_path: Path, prefix: str) -> None:
    path = dictionary(tmp_path, "AutoEncoderTopK", {}, k=4)
    plain = import_sae(path)
    state = torch.load(path / "ae.pt", weights_only=True)
    torch.save({"state_dict": {f"{prefix}{n}": t for n, t in state.items()}}, path / "ae.pt")
    assert torch.equal(import_sae(path).reconstruct(X), plain.reconstruct(X))


def llama_scope(path: Path, tensors: dict[str, Tensor], **said: Any) -> Path:
    config = {"d_model": D_MODEL, "expansion_factor": 4, "sae_type": "sae", "hook_point_in": HOOK}
    (path / "config.json").write_text(json.dumps({**config, "hook_point_out": HOOK, **said}))
    (path / "checkpoints").mkdir(exist_ok=True)
    save_file(tensors, path / "checkpoints" / "pruned.safetensors")
    return path


def test_llama_scope_s_norms_of_the_registry_are_given_as_a_factor(tmp_path: Path) -> None:
    tensors = {**LINEAR, "decoder.bias": B_DEC, "log_jumprelu_threshold": THRESHOLD.log()}
    path = llama_scope(tmp_path, tensors, act_fn="jumprelu", norm_activation="dataset-wise")
    with pytest.raises(SaeflowError, match=r"give √d_model over it \(saes.<name>.scale\)"):
        import_sae(path)
    scale = D_MODEL**0.5 / 9.0
    pre = X * scale @ W_ENC + B_ENC
    expected = ((pre * (pre > THRESHOLD)) @ W_DEC + B_DEC) / scale
    read = import_sae(path, given=Given(scale=scale)).reconstruct(X)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)


def test_norms_that_llama_scope_says_itself_are_not_overruled(tmp_path: Path) -> None:
    said = {"norm_activation": "dataset-wise", "act_fn": "relu"}
    norms = {"dataset_average_activation_norm": {"in": 8.0, "out": 8.0}}
    path = llama_scope(tmp_path, {**LINEAR, "decoder.bias": B_DEC}, **said, **norms)
    import_sae(path, given=Given(scale=D_MODEL**0.5 / 8))
    with pytest.raises(SaeflowError, match=r"multiplied by 0.306186, not 0.5; correct scale"):
        import_sae(path, given=Given(scale=0.5))


def test_a_transcoder_of_llama_scope_has_a_norm_on_either_side(tmp_path: Path) -> None:
    read, write = "blocks.5.ln2.hook_normalized", "blocks.5.hook_mlp_out"
    said = {"norm_activation": "dataset-wise", "act_fn": "relu"}
    hooks = {"hook_point_in": read, "hook_point_out": write}
    norms = {"dataset_average_activation_norm": {"in": 8.0, "out": 2.0}}
    tensors = {**LINEAR, "decoder.bias": B_DEC}
    sae = import_sae(llama_scope(tmp_path, tensors, **said, **hooks, **norms))
    latents = (X * D_MODEL**0.5 / 8 @ W_ENC + B_ENC).clamp(min=0)
    expected = (latents @ W_DEC + B_DEC) * 2 / D_MODEL**0.5
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    assert placed(sae, "blocks.5.mlp.hook_in", write).metadata["hook_name_out"] == write
    with pytest.raises(SaeflowError, match=r"writes blocks\.5\.hook_mlp_out, not blocks\.6"):
        placed(sae, "blocks.5.mlp.hook_in", "blocks.6.hook_mlp_out")
    with pytest.raises(SaeflowError, match="activations of two mean norms; write both"):
        import_sae(llama_scope(tmp_path, tensors, **said, **hooks), given=Given(scale=0.5))


def test_a_transcoder_of_gemma_scope_reads_behind_the_norm_and_writes_what_the_mlp_does(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_5" / "width_16k" / "average_l0_9"
    path.mkdir(parents=True)
    tensors = {**PLAIN, "threshold": THRESHOLD}
    np.savez(path / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    sae = import_sae(path)
    pre = X @ W_ENC + B_ENC
    expected = (pre * (pre > THRESHOLD)) @ W_DEC + B_DEC
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    read, write = "blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out"
    assert placed(sae, read, write).metadata["hook_name"] == read
    for other in ("blocks.5.hook_resid_mid", "blocks.4.mlp.hook_in"):
        with pytest.raises(SaeflowError, match=r"reads blocks\.5\.mlp\.hook_in"):
            placed(sae, other, write)
    np.savez(path / "params.npz", **{n: t.numpy() for n, t in tensors.items()}, W_skip=np.eye(6))
    with pytest.raises(SaeflowError, match="holds W_skip, of which its config says nothing"):
        import_sae(path)


def test_llamascopium_s_batchtopk_takes_the_threshold_that_is_given(tmp_path: Path) -> None:
    tensors = {"W_E": W_ENC, "b_E": B_ENC, "W_D": W_DEC, "b_D": B_DEC}
    path = llama_scope(tmp_path, tensors, act_fn="batchtopk", top_k=3)
    with pytest.raises(SaeflowError, match=r"chooses among a whole batch.*\(saes.<name>.threshold"):
        import_sae(path)
    pre = X @ W_ENC + B_ENC
    expected = (pre * (pre > 0.8)) @ W_DEC + B_DEC
    read = import_sae(path, given=Given(threshold=0.8)).reconstruct(X)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)


def test_gemma_scope_s_embeddings_are_read_where_gemma_has_multiplied_them(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
    path.mkdir(parents=True)
    weights = {name: tensor.numpy() for name, tensor in PLAIN.items()}
    np.savez(path / "params.npz", **weights, threshold=THRESHOLD.numpy())
    root = D_MODEL**0.5
    pre = X / root @ W_ENC + B_ENC
    expected = ((pre * (pre > THRESHOLD)) @ W_DEC + B_DEC) * root
    sae = import_sae(path)
    torch.testing.assert_close(sae.reconstruct(X), expected, rtol=1e-4, atol=1e-4)
    assert sae.metadata["hook_name"] == "hook_embed"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(k=3), "says itself that k|takes no k"),
        (Given(scale=2.0), r"multiplies its input by nothing \('none'\); remove scale"),
        (Given(threshold=0.1), "format 'saelens' takes no threshold; its files say all"),
        (Given(apply_b_dec_to_input=True), "takes no apply_b_dec_to_input"),
        (
            Given(normalize_activations="whitened"),
            "'whitened' is not known here; known are layer_no",
        ),
    ],
)
def test_what_a_format_says_itself_is_not_given(tmp_path: Path, given: Given, message: str) -> None:
    config = {**BEFORE_6, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    with pytest.raises(SaeflowError, match=message):
        import_sae(folder(tmp_path, config), given=given)


def test_k_is_given_to_topk_alone(tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match="is no TopK SAE but 'standard'; remove k"):
        import_sae(folder(tmp_path, BEFORE_6), given=Given(k=3))
    path = dictionary(tmp_path, "AutoEncoder", {"bias": B_DEC})
    (path / "cfg.json").unlink()
    with pytest.raises(SaeflowError, match=r"ae.pt: is no TopK SAE; remove k \(saes"):
        import_sae(path, given=Given(k=3))


def test_what_is_given_is_for_saes_from_elsewhere() -> None:
    assert sections.SAE(path="somewhere", k=3, scale=0.5).given == Given(k=3, scale=0.5)
    with pytest.raises(ValueError, match="is for SAEs from elsewhere, and this one is trained"):
        sections.SAE(train={}, scale=0.5)  # type: ignore[arg-type]
