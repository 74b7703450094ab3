"""SAEs of other libraries: imported, they compute what the library computes; exported, they come
back the same."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkout import DATA
from safetensors.torch import load_file, save_file

from saeflow.artifacts import write_json
from saeflow.config import sae_files
from saeflow.errors import SaeflowError
from saeflow.saes.formats.folding import for_uncentred
from saeflow.saes.formats.tensors import write_tensors
from saeflow.saes.io import FORMATS, export_sae, import_sae, load_sae, save_sae
from saeflow.saes.sae import SAE
from saeflow.tensors import read_tensors

SAES = DATA / "saes"
CASES = sorted(path.name for path in SAES.iterdir())
HOOK = "blocks.3.hook_resid_post"
D_MODEL, D_SAE = 6, 12


def random_sae(architecture: str, d_out: int = D_MODEL, skip: bool = False, **metadata: str) -> SAE:
    draw = torch.Generator().manual_seed(3)
    rows = torch.randn(D_SAE, d_out, generator=draw)
    own = {
        "jumprelu": {"threshold": torch.rand(D_SAE, generator=draw)},
        "topk": {"k": 3},
        "gated": {
            name: torch.randn(D_SAE, generator=draw) for name in ("r_mag", "b_gate", "b_mag")
        },
    }
    return SAE(
        architecture,
        W_enc=torch.randn(D_MODEL, D_SAE, generator=draw),
        W_dec=rows / rows.norm(dim=1, keepdim=True),
        b_enc=torch.randn(D_SAE, generator=draw),
        b_dec=torch.randn(d_out, generator=draw),
        W_skip=torch.randn(d_out, D_MODEL, generator=draw) if skip else None,
        metadata={"model_name": "tiny", "hook_name": HOOK, **metadata},
        **own.get(architecture, {}),
    )


def same_function(first: SAE, other: SAE) -> None:
    x = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(first.encode(x), other.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.reconstruct(x), other.reconstruct(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_an_imported_sae_computes_what_its_library_computes(case):
    sae, expected = import_sae(SAES / case), load_file(SAES / case / "expected.safetensors")
    written = sae.encode(expected["x"]) * sae.W_dec.norm(dim=1)
    torch.testing.assert_close(
        written, expected["latents"] * expected["lengths"], rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        sae.reconstruct(expected["x"]), expected["reconstruction"], rtol=0, atol=1e-5
    )
    assert 0 < (expected["latents"] > 0).float().mean() < 0.9
    told_apart = (
        case.startswith("llama_scope") or "rescaled" in case
    )  # there a unit of a latent writes unit length
    assert told_apart or ((expected["lengths"] - 1).abs() > 0.05).any()


def test_every_format_has_a_case_and_is_told_from_the_names_of_its_files():
    # a single file has tests of its own
    formats = {case.split("-")[0] for case in CASES} | {sae_files.SINGLE_FILE}
    assert formats == FORMATS.keys() == sae_files.SAE_FORMATS.keys()
    for case in CASES:
        assert sae_files.sae_format(SAES / case) == case.split("-")[0]


def test_the_number_of_latents_is_read_without_torch():
    program = f"""
import sys
from collections.abc import Callable
from pathlib import Path
from saeflow.config.sae_files import latents_of
for folder in sorted(Path({str(SAES)!r}).iterdir()):
    assert latents_of(folder) == 12, folder
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("case", CASES)
def test_decoder_rows_have_unit_norm_unless_that_would_change_the_choice_of_latents(case):
    sae = import_sae(SAES / case)
    unit = torch.allclose(sae.W_dec.norm(dim=1), torch.ones(D_SAE), atol=1e-5)
    by_value = sae.architecture == "topk" and not case.endswith("rescaled")
    assert unit is not by_value


def llama_scope(folder: Path, **settings: object) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    tensors = {
        "encoder.weight": torch.randn(D_SAE, D_MODEL, generator=draw),
        "encoder.bias": torch.randn(D_SAE, generator=draw),
        "decoder.weight": torch.randn(D_MODEL, D_SAE, generator=draw),
        "decoder.bias": torch.randn(D_MODEL, generator=draw),
    }
    (folder / "checkpoints").mkdir()
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    config = {"d_model": D_MODEL, "d_sae": D_SAE, "hook_point_in": HOOK, "hook_point_out": HOOK}
    norms = {"in": 7.0, "out": 3.0}
    config |= {
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": norms,
    } | settings
    (folder / "hyperparams.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize("by_contribution", [True, False])
@pytest.mark.parametrize("function", ["jumprelu", "topk", "relu"])
def test_llama_scope_is_the_formula_of_normalised_activations(tmp_path, function, by_contribution):
    threshold = 0.9
    raw = llama_scope(
        tmp_path,
        act_fn=function,
        top_k=4,
        jump_relu_threshold=threshold if function == "jumprelu" else 0.0,
        sparsity_include_decoder_norm=by_contribution,
    )
    read, written = math.sqrt(D_MODEL) / 7, math.sqrt(D_MODEL) / 3
    x = torch.randn(40, D_MODEL) * 5
    decoder = raw["decoder.weight"].T
    pre = x * read @ raw["encoder.weight"].T + raw["encoder.bias"]
    judged = (
        pre / read
    )  # the threshold holds for raw activations and the decoder that goes with them
    judged = judged * (decoder * read / written).norm(dim=1) if by_contribution else judged
    active = judged > (threshold if function == "jumprelu" else 0.0)
    if function == "topk":
        active &= judged >= judged.topk(4).values[:, -1:]
    expected = (torch.where(active, pre, 0.0) @ decoder + raw["decoder.bias"]) / written
    torch.testing.assert_close(import_sae(tmp_path).reconstruct(x), expected, rtol=1e-4, atol=1e-4)


def test_a_threshold_measured_after_training_takes_the_place_of_llama_scopes_ranks(tmp_path):
    llama_scope(tmp_path, act_fn="topk", top_k=4, jump_relu_threshold=0.5)
    sae = import_sae(tmp_path)
    assert (sae.architecture, sae.k) == ("jumprelu", None)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("dictionary_learning")])
def test_a_dictionary_without_its_class_is_told_by_its_tensors_or_refused(tmp_path, case):
    shutil.copytree(SAES / case, tmp_path / case)
    (tmp_path / case / "config.json").write_text('{"trainer": {"dict_size": 12}}')
    if "TopK" in case and "Matryoshka" not in case:  # two classes with the same tensors
        with pytest.raises(SaeflowError, match="its dict_class is not told"):
            import_sae(tmp_path / case)
    else:
        same_function(import_sae(tmp_path / case), import_sae(SAES / case))


WRITTEN = [
    *(("saelens", sae) for sae in map(random_sae, ("standard", "topk", "jumprelu", "gated"))),
    *(
        ("saelens", random_sae(name, d_out=7, skip=True))
        for name in ("standard", "topk", "jumprelu", "gated")
    ),
    ("saelens", random_sae("topk", hook_name_out="blocks.3.hook_mlp_out")),
    *(
        ("dictionary_learning", sae)
        for sae in map(random_sae, ("standard", "topk", "jumprelu", "gated"))
    ),
    *(("gemma_scope", sae) for sae in map(random_sae, ("standard", "jumprelu"))),
    ("gemma_scope", random_sae("jumprelu", d_out=7)),
    ("sparsify", random_sae("topk")),
    ("sparsify", random_sae("topk", skip=True)),
]


@pytest.mark.parametrize(
    ("named", "sae"), WRITTEN, ids=lambda case: getattr(case, "architecture", case)
)
def test_an_exported_sae_comes_back_as_the_same_function(tmp_path, named, sae):
    export_sae(tmp_path, sae, named)
    assert sae_files.sae_format(tmp_path) == named
    assert sae_files.latents_of(tmp_path) == D_SAE
    back = import_sae(tmp_path)
    same_function(back, sae)
    assert back.is_transcoder == sae.is_transcoder
    save_sae(tmp_path / "own", back)
    same_function(load_sae(tmp_path / "own"), sae)


@pytest.mark.parametrize(
    ("named", "sae", "message"),
    [
        (
            "gemma_scope",
            random_sae("topk"),
            "holds JumpReLU and ReLU alone, not architecture 'topk'",
        ),
        ("gemma_scope", random_sae("jumprelu", skip=True), "not a skip connection"),
        ("sparsify", random_sae("gated"), "holds TopK alone, not 'gated'"),
        ("sparsify", random_sae("topk", d_out=7), "equal widths, not 6 and 7"),
        ("dictionary_learning", random_sae("standard", d_out=7), "holds no transcoders"),
        (
            "llama_scope",
            random_sae("standard"),
            "'llama_scope' is not written here; written are saelens, gemma_scope",
        ),
        ("gguf", random_sae("standard"), "'gguf' is not written here"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path, named, sae, message):
    with pytest.raises(SaeflowError, match=message):
        export_sae(tmp_path, sae, named)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_computed_with_in_full_and_their_unit_rows_left_alone(
    tmp_path, dtype
):
    sae = random_sae("jumprelu")
    save_sae(tmp_path, sae)
    path = tmp_path / "sae_weights.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    back = load_sae(tmp_path)
    for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"):
        assert torch.equal(getattr(back, name), getattr(sae, name).to(dtype).float())


def damaged(folder: Path, case: str, change: Callable[[Path], None]) -> Path:
    copy = folder / case
    shutil.copytree(SAES / case, copy)
    change(copy)
    return copy


def tensors_changed(file: str, **tensors: torch.Tensor | None) -> Callable[[Path], None]:
    """A change of a file of tensors: others in the place of some, None for a tensor that is
    gone."""

    def change(folder: Path) -> None:
        kept = {
            name: tensor
            for name, tensor in read_tensors(folder / file).items()
            if name not in tensors
        }
        write_tensors(
            folder / file,
            kept | {name: tensor for name, tensor in tensors.items() if tensor is not None},
        )

    return change


def config_changed(file: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_text()) | values
        if "metadata" in config:
            config["metadata"].pop("saeflow_seal", None)
        (folder / file).write_text(json.dumps(config))

    return change


def cut(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-400]) and None


def gone(*files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


NAN = torch.full((D_SAE,), float("nan"))
WHITENING = {"normalize_activations": "covariance_whitening"}
AVERAGE = {"normalize_activations": "expected_average_only_in"}
WIDE = {"num_latents": 13}
CLASS = {"trainer": {"dict_class": "CrossCoder", "dict_size": 12}}
DAMAGE = [
    ("saelens-gated", cut("sae_weights.safetensors"), "sae_weights.safetensors: cannot be read"),
    (
        "saelens-gated",
        tensors_changed("sae_weights.safetensors", r_mag=None),
        "has no tensor r_mag",
    ),
    (
        "saelens-transcoder",
        config_changed("cfg.json", d_out=6),
        r"W_dec has shape \[12, 7\], where the rest",
    ),
    (
        "saelens-standard",
        config_changed("cfg.json", architecture="temporal"),
        "architecture 'temporal' is not known",
    ),
    (
        "saelens-standard",
        config_changed("cfg.json", **WHITENING),
        r"\('covariance_whitening'\) in a way that is not known here",
    ),
    (
        "saelens-standard",
        config_changed("cfg.json", **AVERAGE),
        r"by a number that is not in the file \('expected_average_only_in'\); give it \(saes.<name>.sc",
    ),
    ("gemma_scope-res", cut("params.npz"), "params.npz: cannot be read"),
    (
        "gemma_scope-res",
        tensors_changed("params.npz", threshold=NAN),
        "threshold holds values that are not finite",
    ),
    (
        "gemma_scope-res",
        tensors_changed("params.npz", W_enc=torch.ones(3)),
        r"W_enc has shape \[3\], it must be a matrix",
    ),
    (
        "gemma_scope-res",
        tensors_changed("params.npz", b_dec=torch.ones(5)),
        r"b_dec has shape \[5\], where the rest",
    ),
    ("gemma_scope_2-transcoder", cut("params.safetensors"), "params.safetensors: cannot be read"),
    (
        "gemma_scope_2-transcoder",
        config_changed("config.json", architecture="topk"),
        "architecture 'topk' is not known",
    ),
    (
        "gemma_scope_2-resid_post",
        tensors_changed("params.safetensors", w_dec=torch.ones(D_SAE, 2, D_MODEL)),
        "is a cross-layer transcoder",
    ),
    ("dictionary_learning-AutoEncoder", cut("ae.pt"), "ae.pt: cannot be read"),
    ("dictionary_learning-AutoEncoder", tensors_changed("ae.pt", bias=None), "has no tensor bias"),
    (
        "dictionary_learning-AutoEncoder",
        config_changed("config.json", **CLASS),
        r"is a crosscoder \(CrossCoder\), which reads several",
    ),
    (
        "dictionary_learning-AutoEncoder",
        config_changed("config.json", trainer=3),
        "has no section 'trainer'",
    ),
    (
        "sparsify-topk",
        config_changed("cfg.json", k="many"),
        "its config is not one of format 'sparsify'",
    ),
    (
        "sparsify-topk",
        config_changed("cfg.json", num_latents=0, expansion_factor=1e999),
        "is 'inf' and must be a whole",
    ),
    *(
        (
            "saelens-standard",
            config_changed("cfg.json", d_sae=size),
            f"d_sae is '{size}' and must be a whole number",
        )
        for size in (-8, 8.7, "8", True, float("inf"), float("nan"), 10**12)
    ),
    (
        "saelens-standard",
        config_changed("cfg.json", d_sae=10**6),
        r"W_enc has shape \[6, 12\], where the rest says",
    ),
    ("saelens-topk_by_value", config_changed("cfg.json", k=10**30), "no usable k"),
    (
        "saelens-topk_by_value",
        config_changed("cfg.json", k=float("inf")),
        "its config is not one of format",
    ),
    (
        "saelens-standard",
        config_changed("cfg.json", architecture=["standard"]),
        "its config is not one of format",
    ),
    (
        "gemma_scope-res",
        tensors_changed("params.npz", W_enc=torch.ones(6, 12, dtype=torch.int32)),
        "W_enc holds numbers of type int32, not weights",
    ),
    (
        "gemma_scope-res",
        tensors_changed("params.npz", b_enc=torch.ones(12, dtype=torch.complex64)),
        "b_enc holds numbers of type complex64, not weights",
    ),
    (
        "dictionary_learning-BatchTopKSAE",
        tensors_changed("ae.pt", threshold=None),
        "has no threshold, without which BatchTopK chooses among a whole batch",
    ),
    (
        "gemma_scope_2-resid_post",
        lambda folder: write_json(folder / "config.json", [1]),
        "not one of format",
    ),
    ("sparsify-topk", gone("sae.safetensors", "expected.safetensors"), "holds no SAE in a known"),
    (
        "sparsify-topk",
        config_changed("cfg.json", activation="groupmax"),
        "activation function 'groupmax' is not known",
    ),
    (
        "sparsify-transcode_skip",
        config_changed("cfg.json", skip_connection=False),
        "holds W_skip, of which its config says nothing",
    ),
    (
        "sparsify-topk",
        config_changed("cfg.json", signed=True),
        "activation function 'signed topk' is not known",
    ),
    (
        "sparsify-topk",
        config_changed("cfg.json", **WIDE),
        r"encoder.weight has shape \[12, 6\], where the rest",
    ),
    (
        "llama_scope-2024",
        config_changed("hyperparams.json", act_fn="gelu"),
        "activation function 'gelu' is not known",
    ),
    (
        "llama_scope-2024",
        config_changed("hyperparams.json", norm_activation="token-wise"),
        r"\('token-wise'\) in a way that no weights can stand for",
    ),
    (
        "llama_scope-2024",
        config_changed("hyperparams.json", use_glu_encoder=True),
        "gated linear unit",
    ),
    ("llama_scope-2024", gone("checkpoints/final.safetensors"), "final.safetensors: no such file"),
    (
        "llama_scope-2025",
        config_changed("config.json", sae_type="crosscoder"),
        "is a 'crosscoder', which is not known",
    ),
]


@pytest.mark.parametrize(
    ("case", "change", "message"),
    DAMAGE,
    ids=[f"{case}-{n}" for n, (case, *_) in enumerate(DAMAGE)],
)
def test_what_cannot_be_imported_is_told_in_one_sentence(tmp_path, case, change, message):
    with pytest.raises(SaeflowError, match=message) as raised:
        import_sae(damaged(tmp_path, case, change))
    assert "\n" not in str(raised.value)


def test_a_named_format_is_taken_at_its_word(tmp_path):
    same_function(
        import_sae(SAES / "sparsify-topk", "sparsify"), import_sae(SAES / "sparsify-topk")
    )
    with pytest.raises(SaeflowError, match=r"params.npz: no such file"):
        import_sae(SAES / "sparsify-topk", "gemma_scope")
    with pytest.raises(
        SaeflowError, match="there is no format 'gguf'; known are saelens, gemma_scope"
    ):
        import_sae(SAES / "sparsify-topk", "gguf")
    with pytest.raises(SaeflowError, match="no such folder"):
        import_sae(tmp_path / "nowhere")


def test_a_width_that_no_header_tells_is_one_sentence(tmp_path):
    for case, file in (
        ("gemma_scope-res", "params.npz"),
        ("gemma_scope_2-resid_post", "params.safetensors"),
    ):
        folder = damaged(tmp_path, case, cut(file))
        with pytest.raises(SaeflowError, match=rf"{file}: cannot be read .*; get it again"):
            sae_files.latents_of(folder)


class Intruder:
    """Runs code where a pickle is loaded without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path):
    folder = tmp_path / "dictionary"
    shutil.copytree(SAES / "dictionary_learning-AutoEncoder", folder)
    torch.save({"bias": Intruder(tmp_path / "ran")}, folder / "ae.pt")
    with pytest.raises(SaeflowError, match="holds more than tensors"):
        import_sae(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_from_before_saelens_6_reads_as_its_config_says(tmp_path: Path) -> None:
    sae = random_sae("standard")
    save_sae(tmp_path, sae)
    stored = load_file(tmp_path / "sae_weights.safetensors")
    sparsity = {"scaling_factor": torch.ones(D_SAE)}
    save_file(
        {**stored, "b_enc": sae.b_enc + sae.b_dec @ sae.W_enc, **sparsity},
        tmp_path / "sae_weights.safetensors",
    )
    old = {
        "model_name": "gpt2-small",
        "hook_point": HOOK,
        "d_in": D_MODEL,
        "d_sae": D_SAE,
        "dtype": "torch.float32",
    }
    write_json(tmp_path / "cfg.json", old)
    read, x = import_sae(tmp_path), torch.randn(20, D_MODEL)
    # The default of the time: the decoder's bias is subtracted from the input.
    expected = torch.relu((x - sae.b_dec) @ sae.W_enc + sae.b_enc + sae.b_dec @ sae.W_enc)
    torch.testing.assert_close(read.encode(x), expected, rtol=1e-4, atol=1e-5)
    assert read.metadata["hook_name"] == HOOK
    write_json(
        tmp_path / "cfg.json", old | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    )
    assert (import_sae(tmp_path).encode(x) > 0).sum(1).max() <= 3
    for change, message in (
        ({"normalize_activations": "whitened"}, "normalises its input"),
        ({"activation_fn_str": "tanh-relu"}, "architecture 'tanh-relu' is not known here"),
    ):
        write_json(tmp_path / "cfg.json", old | change)
        with pytest.raises(SaeflowError, match=message):
            import_sae(tmp_path)


def test_a_dictionary_of_before_december_2024_has_its_k_in_its_config(tmp_path: Path) -> None:
    case = "dictionary_learning-AutoEncoderTopK"
    folder = damaged(tmp_path, case, tensors_changed("ae.pt", k=None))
    config = json.loads((folder / "config.json").read_text())
    config["trainer"]["k"] = int(read_tensors(SAES / case / "ae.pt")["k"])
    write_json(folder / "config.json", config)
    same_function(import_sae(folder), import_sae(SAES / case))


def test_latents_that_were_scaled_after_training_are_decoded_at_that_scale(tmp_path: Path) -> None:
    sae, x = random_sae("standard"), torch.randn(20, D_MODEL)
    save_sae(tmp_path, sae)
    scale = torch.rand(D_SAE) + 0.5
    save_file(
        {**load_file(tmp_path / "sae_weights.safetensors"), "scaling_factor": scale},
        tmp_path / "sae_weights.safetensors",
    )
    config = {"hook_point": HOOK, "d_in": D_MODEL, "d_sae": D_SAE, "apply_b_dec_to_input": False}
    write_json(tmp_path / "cfg.json", config | {"finetuning_scaling_factor": True})
    expected = (torch.relu(x @ sae.W_enc + sae.b_enc) * scale) @ sae.W_dec + sae.b_dec
    torch.testing.assert_close(import_sae(tmp_path).reconstruct(x), expected, rtol=1e-4, atol=1e-5)


def test_a_scale_that_the_files_do_not_say_is_read_where_it_is_written_beside_them(
    tmp_path: Path,
) -> None:
    sae, x, scale = random_sae("standard"), torch.randn(20, D_MODEL), 0.2138
    save_sae(tmp_path, sae)
    config = {"hook_point": HOOK, "d_in": D_MODEL, "d_sae": D_SAE, "apply_b_dec_to_input": False}
    write_json(tmp_path / "cfg.json", config | {"normalize_activations": True})
    with pytest.raises(
        SaeflowError, match=r"write it beside it as .+ into activation_scaler\.json"
    ):
        import_sae(tmp_path)
    write_json(tmp_path / "activation_scaler.json", {"scaling_factor": scale})
    expected = (torch.relu(scale * x @ sae.W_enc + sae.b_enc) @ sae.W_dec + sae.b_dec) / scale
    torch.testing.assert_close(import_sae(tmp_path).reconstruct(x), expected, rtol=1e-4, atol=1e-4)


def test_more_latents_than_the_files_have_bytes_are_refused_before_any_job_is_counted(
    tmp_path: Path,
) -> None:
    for case, file, change in (
        ("saelens-standard", "cfg.json", {"d_sae": 10**8}),
        ("sparsify-topk", "cfg.json", {"num_latents": 10**8}),
        ("dictionary_learning-AutoEncoder", "config.json", {"trainer": {"dict_size": 10**8}}),
        ("llama_scope-2024", "hyperparams.json", {"d_sae": 10**8}),
    ):
        folder = damaged(tmp_path, case, config_changed(file, **change))
        with pytest.raises(SaeflowError, match="says 100,000,000, and its files have"):
            sae_files.latents_of(folder)
        with pytest.raises(SaeflowError, match="does not say how many latents"):
            sae_files.latents_of(
                damaged(tmp_path / "inf", case, config_changed(file, **_infinite(change)))
            )


def _infinite(values: dict[str, object]) -> dict[str, object]:
    return {
        key: _infinite(value) if isinstance(value, dict) else float("inf")
        for key, value in values.items()
    }


def test_an_sae_of_centred_activations_reads_them_as_they_are() -> None:
    sae, x = random_sae("jumprelu"), torch.randn(50, D_MODEL) + 3
    torch.testing.assert_close(
        for_uncentred(sae).encode(x), sae.encode(x - x.mean(1, keepdim=True))
    )
    assert not torch.allclose(sae.encode(x), sae.encode(x - x.mean(1, keepdim=True)))
