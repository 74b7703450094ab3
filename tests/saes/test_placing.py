"""Where an SAE was trained, in the words of every library, is held against where a study reads
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import FAMILY_NAMES, tiny_language_model, tiny_tokens

from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.places import canonical_hook, family_of, hooks_at
from saeflow.models.running import capture
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.evaluation import evaluate_sae
from saeflow.saes.formats.folding import for_uncentred
from saeflow.saes.io import import_sae
from saeflow.saes.placing import placed, warn_of_training, with_sources
from saeflow.saes.sae import SAE

D_MODEL, D_SAE = 6, 24
DRAW = torch.Generator().manual_seed(0)
W_ENC = torch.randn(D_MODEL, D_SAE, generator=DRAW)
W_DEC = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=DRAW), dim=1)
B_ENC, B_DEC = torch.zeros(D_SAE), torch.zeros(D_MODEL)
MODEL_OF = {
    "gemma2": "google/gemma-2-2b",
    "gemma3_text": "google/gemma-3-1b-pt",
    "gpt_neox": "EleutherAI/pythia-70m",
}


def sparsify(folder: Path, name: str, transcode: bool = False) -> Path:
    folder = folder / name
    folder.mkdir()
    weights = {
        "encoder.weight": W_ENC.T.contiguous(),
        "encoder.bias": B_ENC,
        "W_dec": W_DEC,
        "b_dec": B_DEC,
    }
    save_file(weights, folder / "sae.safetensors")
    config = {
        "activation": "topk",
        "num_latents": D_SAE,
        "k": 3,
        "d_in": D_MODEL,
        "transcode": transcode,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def gemma_scope_2(folder: Path, name: str, config: dict[str, Any] | None = None) -> Path:
    folder = folder / name
    folder.mkdir(parents=True)
    weights = {
        "w_enc": W_ENC,
        "w_dec": W_DEC,
        "b_enc": B_ENC,
        "b_dec": B_DEC,
        "threshold": torch.zeros(D_SAE),
    }
    save_file(weights, folder / "params.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"architecture": "jump_relu", **config}))
    return folder


def gemma_scope(folder: Path, name: str) -> Path:
    folder = folder / name
    folder.mkdir(parents=True)
    weights = {
        "W_enc": W_ENC,
        "W_dec": W_DEC,
        "b_enc": B_ENC,
        "b_dec": B_DEC,
        "threshold": torch.zeros(D_SAE),
    }
    np.savez(folder / "params.npz", **{key: value.numpy() for key, value in weights.items()})
    return folder


def dictionary(folder: Path, trainer: dict[str, Any], buffer: dict[str, Any] | None = None) -> Path:
    weights = {
        "bias": B_DEC,
        "encoder.weight": W_ENC.T,
        "encoder.bias": B_ENC,
        "decoder.weight": W_DEC.T,
    }
    torch.save({name: weight.contiguous() for name, weight in weights.items()}, folder / "ae.pt")
    trainer = {
        "dict_class": "AutoEncoder",
        "activation_dim": D_MODEL,
        "dict_size": D_SAE,
        **trainer,
    }
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer or {}}))
    return folder


def saelens(folder: Path, metadata: dict[str, Any]) -> Path:
    save_file(
        {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC},
        folder / "sae_weights.safetensors",
    )
    config = {"architecture": "standard", "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32"}
    metadata = {"sae_lens_version": "6.20.0", **metadata}
    (folder / "cfg.json").write_text(json.dumps({**config, "metadata": metadata}))
    return folder


CASES = {
    "sparsify, the stream": (
        lambda f: sparsify(f, "layers.5"),
        "blocks.5.hook_resid_post",
        "blocks.4.hook_resid_post",
    ),
    "sparsify, an MLP": (
        lambda f: sparsify(f, "layers.5.mlp"),
        "blocks.5.hook_mlp_out",
        "blocks.5.hook_resid_post",
    ),
    "sparsify, GPT-2": (
        lambda f: sparsify(f, "h.3.attn"),
        "blocks.3.hook_attn_out",
        "blocks.3.hook_mlp_out",
    ),
    "Gemma Scope 2": (
        lambda f: gemma_scope_2(f, "x", {"hf_hook_point_in": "model.layers.12.output"}),
        "blocks.13.hook_resid_pre",
        "blocks.12.hook_resid_pre",
    ),
    "Gemma Scope 2, heads": (
        lambda f: gemma_scope_2(
            f, "x", {"hf_hook_point_in": "model.layers.7.self_attn.o_proj.input"}
        ),
        "blocks.7.attn.hook_z",
        "blocks.7.hook_attn_out",
    ),
    "Gemma Scope 2, what is added": (
        lambda f: gemma_scope_2(
            f,
            "x",
            {
                "hf_hook_point_in": "model.layers.7.post_feedforward_layernorm.output",
                "model_name": "gemma-v3-1b-pt",  # so the published configs have it
            },
        ),
        "blocks.7.hook_mlp_out",
        "blocks.7.mlp.hook_in",
    ),
    "Gemma Scope 2 without its config": (
        lambda f: gemma_scope_2(f, "resid_post_all/layer_12_width_16k_l0_small"),
        "blocks.12.hook_resid_post",
        "blocks.11.hook_resid_post",
    ),
    "Gemma Scope, by its folders": (
        lambda f: gemma_scope(f, "gemma-scope-2b-pt-mlp/layer_20/width_16k/average_l0_71"),
        "blocks.20.hook_mlp_out",
        "blocks.20.hook_resid_post",
    ),
    "Gemma Scope, the layer alone": (
        lambda f: gemma_scope(f, "layer_20/width_16k/average_l0_71"),
        "blocks.20.hook_resid_post",
        "blocks.2.hook_resid_post",
    ),
    "dictionary_learning": (
        lambda f: dictionary(f, {"submodule_name": "resid_post_layer_19", "layer": 19}),
        "blocks.19.hook_resid_post",
        "blocks.3.hook_resid_post",
    ),
    "dictionary_learning, an MLP": (
        lambda f: dictionary(f, {"submodule_name": "mlp_out_layer3"}),
        "blocks.3.hook_mlp_out",
        "blocks.3.hook_resid_post",
    ),
    "dictionary_learning, a module's input": (
        lambda f: dictionary(f, {"submodule_name": "model.layers.4"}, {"io": "in"}),
        "blocks.3.hook_resid_post",
        "blocks.4.hook_resid_post",
    ),
    "dictionary_learning, the layer alone": (
        lambda f: dictionary(f, {"layer": 8, "submodule_name": None}),
        "blocks.8.hook_mlp_out",
        "blocks.7.hook_mlp_out",
    ),
    "SAELens with the path of a module": (
        lambda f: saelens(f, {"hook_name": "model.layers.19", "model_name": "Qwen/Qwen3-4B"}),
        "blocks.19.hook_resid_post",
        "blocks.3.hook_resid_post",
    ),
    "SAELens over TransformerLens 3": (
        lambda f: saelens(f, {"hook_name": "blocks.2.mlp.hook_out"}),
        "blocks.2.hook_mlp_out",
        "blocks.2.hook_resid_post",
    ),
    "SAELens, both names": (
        lambda f: saelens(
            f, {"hook_name": "blocks.2.hook_resid_post", "hf_hook_name": "model.layers.2.output"}
        ),
        "blocks.2.hook_resid_post",
        "blocks.1.hook_resid_post",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_sae_is_read_where_it_says_that_it_was_trained_and_nowhere_else(
    tmp_path: Path, case: str
) -> None:
    make, right, wrong = CASES[case]
    sae = import_sae(make(tmp_path))
    assert placed(sae, right).metadata["hook_name"] == right
    with pytest.raises(
        SaeflowError, match=f"sae: reads .+, not {wrong}; correct its hook"
    ) as refusal:
        placed(sae, wrong)
    assert "\n" not in str(refusal.value)


def test_a_transcoder_of_sparsify_reads_the_input_of_its_module_and_writes_its_output(
    tmp_path: Path,
) -> None:
    sae = import_sae(sparsify(tmp_path, "layers.3.mlp", transcode=True))
    assert (
        placed(sae, "blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out").written_hook("")
        == "blocks.3.hook_mlp_out"
    )
    with pytest.raises(
        SaeflowError,
        match=r"reads layers.3.mlp.input \(blocks.3.mlp.hook_in\), not blocks.3.hook_resid",
    ):
        placed(sae, "blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out")
    with pytest.raises(
        SaeflowError,
        match=r"writes layers.3.mlp \(blocks.3.hook_mlp_out\), not blocks.4.hook_mlp_out",
    ):
        placed(sae, "blocks.3.mlp.hook_in", "blocks.4.hook_mlp_out")


def test_a_place_without_a_hook_is_refused_everywhere_and_words_that_name_none_say_nothing() -> (
    None
):
    def trained_at(name: str) -> SAE:
        return SAE("standard", W_ENC, W_DEC, B_ENC, B_DEC, metadata={"hook_name": name})

    with pytest.raises(
        SaeflowError, match=r"reads model.layers.2.mlp.act_fn \(no hook here\), not"
    ):
        placed(trained_at("model.layers.2.mlp.act_fn"), "blocks.2.hook_mlp_out")
    with pytest.raises(SaeflowError, match=r"reads blocks.2.attn.hook_q \(no hook here\), not"):
        placed(trained_at("blocks.2.attn.hook_q"), "blocks.2.attn.hook_z")
    assert hooks_at("my favourite place") is None
    assert placed(trained_at("my favourite place"), "blocks.0.hook_mlp_out").metadata["hook_name"]


def test_a_crosscoder_that_names_its_sources_is_read_at_no_others() -> None:
    sources = [
        {"model": "base", "hook": "blocks.1.hook_resid_post"},
        {"model": "chat", "hook": "blocks.1.hook_resid_post"},
    ]
    weights = torch.zeros(2, D_MODEL, D_SAE)
    crosscoder = Crosscoder(
        weights,
        weights.permute(2, 0, 1),
        B_ENC,
        torch.zeros(2, D_MODEL),
        torch.ones(2),
        metadata={"sources": sources},
    )
    assert with_sources(crosscoder, ["a:blocks.1.hook_resid_post", "b:blocks.2.hook_resid_pre"])
    with pytest.raises(
        SaeflowError, match=r"reads blocks.1.hook_resid_post, not blocks.2.hook_resid_post"
    ):
        with_sources(crosscoder, ["a:blocks.1.hook_resid_post", "b:blocks.2.hook_resid_post"])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_module_that_a_hook_is_told_from_holds_the_tensor_of_that_hook(family: str) -> None:
    lm = tiny_language_model(family)
    tokens, layer = tiny_tokens(2, 8), 1
    seen: dict[str, torch.Tensor] = {}

    def remember(name: str, value: Any) -> None:
        seen[name] = value[0] if isinstance(value, tuple) else value

    handles = []
    for path, module in lm.blocks[layer].named_modules():
        name = f"{lm.family.layers}.{layer}{path and '.'}{path}"
        handles += [
            module.register_forward_pre_hook(
                lambda _m, inputs, name=name: inputs and remember(f"{name}.input", inputs)
            ),
            module.register_forward_hook(
                lambda _m, _i, output, name=name: remember(f"{name}.output", output)
            ),
        ]
    with torch.no_grad():
        lm.model(tokens)
    for handle in handles:
        handle.remove()
    model = MODEL_OF.get(family, family)
    sites = [f"blocks.{layer}.{site}" for site in lm.family.sites if "normalized" not in site]
    at_hooks = {
        canonical_hook(hook, model): value for hook, value in capture(lm, tokens, sites).items()
    }
    named = {name: hooks_at(name, model) for name in seen}
    assert {hook for hooks in named.values() for hook in hooks} == set(at_hooks)
    for name, hooks in named.items():
        for hook in hooks:
            torch.testing.assert_close(
                seen[name], at_hooks[hook], rtol=1e-4, atol=1e-4, msg=f"{name} is not {hook}"
            )


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_embeddings_are_read_before_the_first_layer_only_where_they_are_what_it_reads(
    family: str,
) -> None:
    lm, tokens, seen = tiny_language_model(family), tiny_tokens(2, 8), []
    handle = lm.model.get_input_embeddings().register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.detach())
    )
    read = capture(lm, tokens, ["blocks.0.hook_resid_pre"])["blocks.0.hook_resid_pre"]
    handle.remove()
    same = torch.allclose(seen[0], read)
    model = MODEL_OF.get(family, family)
    for name in ("hook_embed", "embed.hook_out", "model.embed_tokens", "transformer.wte.output"):
        assert hooks_at(name, model) == ({"blocks.0.hook_resid_pre"} if same else set())


@pytest.mark.parametrize(
    "model",
    ["cerebras/Cerebras-GPT-111M", "tiny-stories-33M", "microsoft/DialoGPT-small", "gelu-1l"],
)
def test_embeddings_of_a_gpt_by_another_name_are_in_no_layer_s_stream(model: str) -> None:
    assert hooks_at("hook_embed", model) == set()


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.vision_model.encoder.layers.5.output",
        "model.vision_tower.embeddings",
        "visual.blocks.5.mlp",
        "audio_tower.layers.5",
        "model.encoder.layers.5",
    ],
)
def test_layers_that_read_pictures_or_sound_are_no_layers_of_the_text(name: str) -> None:
    assert hooks_at(name, "google/gemma-3-4b-it") == set()
    for text in ("model.language_model.layers.5.output", "transformer.encoder.layers.5"):
        assert hooks_at(text, "google/gemma-3-4b-it") == {"blocks.5.hook_resid_post"}


def test_names_of_norms_behind_a_module_and_of_tensors_beyond_the_layers_are_known() -> None:
    at = {
        "blocks.3.ln1.hook_in": {"blocks.2.hook_resid_post"},
        "blocks.3.ln1_post.hook_out": {"blocks.3.hook_attn_out"},
        "blocks.3.ln2_post.hook_out": {"blocks.3.hook_mlp_out"},
        "hook_pos_embed": set(),
        "ln_final.hook_normalized": set(),
        "unembed.hook_in": set(),
        "model.norm": set(),
        "lm_head": set(),
    }
    assert {name: hooks_at(name, "google/gemma-2-2b") for name in at} == at


def test_what_an_sae_was_trained_on_is_heeded_or_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(9, D_MODEL, generator=torch.Generator().manual_seed(1))
    layers_of_gpt2 = {"model_name": "gpt2-small", "hook_name": "blocks.1.hook_resid_pre"}

    def shift(**metadata: Any) -> float:
        sae = import_sae(saelens(tmp_path, metadata))
        warn_of_training(sae, ["openai-community/gpt2"])
        return float((sae.encode(x + 3) - sae.encode(x)).abs().max())

    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    assert shift(**layers_of_gpt2, **centred) < 1e-4
    assert shift(**{**layers_of_gpt2, "hook_name": "blocks.1.attn.hook_z"}, **centred) > 1
    assert (
        shift(**layers_of_gpt2, model_from_pretrained_kwargs={"center_writing_weights": False}) > 1
    )
    assert capfd.readouterr().err == ""
    assert (
        shift(**{**layers_of_gpt2, "model_name": "gemma-2b"}, **centred) > 1
    )  # its norm would notice: not centred
    assert (
        "was trained on the model 'gemma-2b', and this one is 'openai-community/gpt2'"
        in capfd.readouterr().err
    )
    shift(**layers_of_gpt2, prepend_bos=False)
    assert "was trained on texts without BOS" in capfd.readouterr().err
    old = {
        "model_name": "gpt2-small",
        "hook_point": "blocks.1.hook_resid_pre",
        "d_in": D_MODEL,
        "d_sae": D_SAE,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    import_sae(tmp_path)
    assert "does not say whether it was trained on centred activations" in capfd.readouterr().err


def test_an_sae_that_rebuilds_the_centred_stream_exactly_explains_all_of_it() -> None:
    lm = tiny_language_model("gpt2")
    # A mean over the width that varies from token to token, and that no layer norm reads.
    lm.model.transformer.wpe.weight.data += torch.linspace(-2, 2, 64)[:, None]
    d_model, hook = lm.d_model, "blocks.1.hook_resid_post"
    basis = torch.linalg.svd(torch.eye(d_model) - 1 / d_model).U[:, : d_model - 1].T
    both = torch.cat([basis, -basis])
    sae = SAE(
        "standard",
        both.T,
        both,
        torch.zeros(len(both)),
        torch.zeros(d_model),
        metadata={"hook_name": hook},
    )
    blocks = TokenBlocks(tiny_tokens(20, 40).int().numpy(), {}, {})
    measured = evaluate_sae(lm, for_uncentred(sae), hook, blocks)
    assert measured["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert measured["l2_ratio"] == pytest.approx(1, abs=1e-5)
    assert measured["recovered"] == pytest.approx(1, abs=1e-4)
    assert evaluate_sae(lm, sae, hook, blocks)["explained_variance"] < 0.99


def test_a_skip_connection_reads_the_centred_activation_too() -> None:
    draw = torch.Generator().manual_seed(2)
    weights = [
        torch.randn(shape, generator=draw)
        for shape in ((D_MODEL, 5), (5, D_MODEL), (5,), (D_MODEL,))
    ]
    sae = SAE("standard", *weights, W_skip=torch.randn(D_MODEL, D_MODEL, generator=draw))
    x = torch.randn(9, D_MODEL, generator=draw) + 2
    torch.testing.assert_close(
        for_uncentred(sae).reconstruct(x), sae.reconstruct(x - x.mean(1, keepdim=True))
    )


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("google/gemma-3-1b-pt", "gemma3_text"),
        ("gemma-v3-4b-it", "gemma3_text"),
        ("google/gemma-2-2b", "gemma2"),
        ("google/gemma-2b", "gemma"),
        ("gpt2-small", "gpt2"),
        ("EleutherAI/pythia-70m-deduped", "gpt_neox"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
        ("Qwen/Qwen3-4B", "qwen3"),
        ("meta-llama/Llama-3.1-8B", "llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2"),
        ("somebody/else", None),
    ],
)
def test_a_model_s_name_tells_its_family(model: str, family: str | None) -> None:
    assert family_of(model) == family
