"""Random SAEs made, saved and read by the libraries themselves; runs in their environment and knows
nothing of saeflow.

    peers.py write FOLDER --width D --latents F --rows N    one folder per case,
    with what the library computes
    peers.py read FOLDER                                    every folder there,
    as the library that it is for reads it

Each folder holds ``expected.safetensors``: ``x [rows, d_model]``, ``latents [rows, d_sae]``,
``reconstruction`` and ``lengths [d_sae]``, what one unit of a latent adds. Before ``read`` it holds
``x`` alone, in ``x.safetensors``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sae_lens
import torch
from dictionary_learning.dictionary import (
    AutoEncoder,
    AutoEncoderNew,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from sae_lens.loading import pretrained_sae_loaders as hub
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

HOOK = "blocks.3.hook_resid_post"
HEADS = 2
BY_TOP_K = (AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE)
DICTIONARIES = {
    coder_class.__name__: coder_class
    for coder_class in (
        AutoEncoder,
        AutoEncoderNew,
        GatedAutoEncoder,
        JumpReluAutoEncoder,
        *BY_TOP_K,
    )
}


class Coder(NamedTuple):
    """A library's object, reduced to what is compared."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    reconstruct: Callable[[Tensor], Tensor]


class Size(NamedTuple):
    width: int
    latents: int
    rows: int


def randomise(module: torch.nn.Module) -> None:
    """Weights with which about half of the latents are active and no decoder row has unit norm."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or name == "topk_threshold":
            continue
        spread = tensor.shape[0 if name == "W_enc" else -1] ** -0.5 if tensor.ndim == 2 else 0.5
        tensor.copy_(torch.randn_like(tensor) * spread)
        if name == "threshold":
            tensor.copy_(torch.rand_like(tensor) * 0.5)


def note(folder: Path, coder: Coder, x: Tensor, d_sae: int) -> None:
    """Write what a coder computes."""
    noted = {"x": x, "latents": coder.encode(x), "reconstruction": coder.reconstruct(x)}
    units = torch.eye(d_sae)
    noted["lengths"] = (coder.decode(units) - coder.decode(torch.zeros_like(units))).norm(dim=-1)
    save_file(
        {name: value.contiguous() for name, value in noted.items()}, folder / "expected.safetensors"
    )


# SAELens


def of_saelens(sae: Any) -> Coder:
    return Coder(sae.encode, sae.decode, sae)


def through_heads(sae: Any) -> Coder:
    """An SAE of ``hook_z`` takes the heads apart; here activations are flat."""
    return Coder(
        lambda x: sae.encode(x.unflatten(-1, (HEADS, -1))),
        lambda z: sae.decode(z).flatten(-2),
        lambda x: sae(x.unflatten(-1, (HEADS, -1))).flatten(-2),
    )


def saelens_cases(size: Size) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class and settings of every kind of SAE that SAELens saves for inference."""
    transcoder = {"d_out": size.width + 1}
    return {
        "standard": ("StandardSAE", {"apply_b_dec_to_input": True}),
        "standard_plain": ("StandardSAE", {"apply_b_dec_to_input": False}),
        "gated": ("GatedSAE", {"apply_b_dec_to_input": True}),
        "gated_plain": ("GatedSAE", {"apply_b_dec_to_input": False}),
        "jumprelu": ("JumpReLUSAE", {"apply_b_dec_to_input": False}),
        "topk_by_value": (
            "TopKSAE",
            {"k": 4, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": False},
        ),
        "topk_rescaled": (
            "TopKSAE",
            {"k": 4, "apply_b_dec_to_input": True, "rescale_acts_by_decoder_norm": True},
        ),
        "hook_z": ("StandardSAE", {"apply_b_dec_to_input": True, "reshape_activations": "hook_z"}),
        "transcoder": ("Transcoder", {"apply_b_dec_to_input": False, **transcoder}),
        "skip_transcoder": ("SkipTranscoder", {"apply_b_dec_to_input": False, **transcoder}),
        "jumprelu_transcoder": (
            "JumpReLUTranscoder",
            {"apply_b_dec_to_input": False, **transcoder},
        ),
        "jumprelu_skip_transcoder": (
            "JumpReLUSkipTranscoder",
            {"apply_b_dec_to_input": False, **transcoder},
        ),
    }


def metadata(name: str) -> Any:
    hook = "blocks.3.attn.hook_z" if name == "hook_z" else HOOK
    return sae_lens.saes.sae.SAEMetadata(model_name="random", hook_name=hook)


def write_saelens(root: Path, size: Size, x: Tensor) -> None:
    for name, (kind, settings) in saelens_cases(size).items():
        config = getattr(sae_lens, f"{kind}Config")(
            d_in=size.width, d_sae=size.latents, metadata=metadata(name), **settings
        )
        sae = getattr(sae_lens, kind)(config)
        randomise(sae)
        folder = root / f"saelens-{name}"
        sae.save_model(folder)
        note(folder, through_heads(sae) if name == "hook_z" else of_saelens(sae), x, size.latents)
    write_saelens_scaled(root / "saelens-expected_average_only_in", size, x)
    for kind, more in (
        ("BatchTopK", {}),
        ("MatryoshkaBatchTopK", {"matryoshka_widths": [4, size.latents]}),
    ):
        write_saelens_trained(root, kind, more, size, x)


def write_saelens_scaled(folder: Path, size: Size, x: Tensor) -> None:
    """As a checkpoint of a training lies there: the scale of the input beside the weights, and not
    yet in them."""
    config = sae_lens.JumpReLUSAEConfig(
        d_in=size.width,
        d_sae=size.latents,
        apply_b_dec_to_input=True,
        normalize_activations="expected_average_only_in",
        metadata=metadata("jumprelu"),
    )
    sae, scaler = sae_lens.JumpReLUSAE(config), ActivationScaler(scaling_factor=0.37)
    randomise(sae)
    sae.save_model(folder)
    scaler.save(str(folder / "activation_scaler.json"))
    # Latents in the input's own units: what a unit adds is then the decoder's row, unscaled.
    note(
        folder,
        Coder(
            lambda x: sae.encode(scaler.scale(x)) / 0.37,
            lambda z: scaler.unscale(sae.decode(z * 0.37)),
            lambda x: scaler.unscale(sae(scaler.scale(x))),
        ),
        x,
        size.latents,
    )


def write_saelens_trained(
    root: Path, kind: str, more: dict[str, Any], size: Size, x: Tensor
) -> None:
    """A training as it is saved, and the SAE for inference that SAELens makes of it, which says
    what is right."""
    for rescaled in (True, False):
        config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(
            d_in=size.width,
            d_sae=size.latents,
            k=4.0,
            rescale_acts_by_decoder_norm=rescaled,
            metadata=metadata("batchtopk"),
            **more,
        )
        trained = getattr(sae_lens, f"{kind}TrainingSAE")(config)
        randomise(trained)
        trained.topk_threshold.fill_(0.6)
        name = f"saelens-{config.architecture()}_{'rescaled' if rescaled else 'by_value'}"
        trained.save_inference_model(root / f"{name}_inference")
        coder = of_saelens(sae_lens.SAE.load_from_disk(root / f"{name}_inference"))
        trained.save_model(root / name)
        for folder in (root / name, root / f"{name}_inference"):
            note(folder, coder, x, size.latents)


def read_saelens(folder: Path, size: Size) -> Coder:
    sae = sae_lens.SAE.load_from_disk(folder)
    return through_heads(sae) if sae.cfg.reshape_activations == "hook_z" else of_saelens(sae)


# dictionary_learning


def of_dictionary(dictionary: Any) -> Coder:
    return Coder(dictionary.encode, dictionary.decode, dictionary)


def write_dictionaries(root: Path, size: Size, x: Tensor) -> None:
    more = {
        "AutoEncoderTopK": {"k": 4},
        "BatchTopKSAE": {"k": 4},
        "MatryoshkaBatchTopKSAE": {"k": 4, "group_sizes": [4, size.latents - 4]},
    }
    for name, kind in DICTIONARIES.items():
        dictionary = kind(size.width, size.latents, **more.get(name, {}))
        randomise(dictionary)
        folder = root / f"dictionary_learning-{name}"
        folder.mkdir(parents=True)
        torch.save(dictionary.state_dict(), folder / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": size.width, "dict_size": size.latents}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        note(folder, of_dictionary(dictionary), x, size.latents)


def read_dictionary(folder: Path) -> Coder:
    name = json.loads((folder / "config.json").read_text())["trainer"]["dict_class"]
    return of_dictionary(DICTIONARIES[name].from_pretrained(folder / "ae.pt"))


# sparsify


def of_sparsify(coder: SparseCoder) -> Coder:
    def encode(x: Tensor) -> Tensor:
        values, indices, pre = coder.encode(x)
        return torch.zeros_like(pre).scatter_(-1, indices, values)

    def decode(z: Tensor) -> Tensor:
        every = torch.arange(z.shape[-1]).expand(z.shape)
        return coder.decode(z, every)

    return Coder(encode, decode, lambda x: coder(x).sae_out)


def write_sparsify(root: Path, size: Size, x: Tensor) -> None:
    cases = {
        "topk": {"num_latents": size.latents},
        "transcode_skip": {"num_latents": size.latents, "transcode": True, "skip_connection": True},
        "by_expansion": {"expansion_factor": 2},
    }
    for name, settings in cases.items():
        coder = SparseCoder(size.width, SparseCoderConfig(k=4, **settings))
        randomise(coder)
        folder = root / f"sparsify-{name}"
        coder.save_to_disk(folder)
        note(folder, of_sparsify(coder), x, coder.num_latents)


# Gemma Scope, Gemma Scope 2 and Llama Scope: no library writes them, and SAELens reads them from
# the hub.


@contextmanager
def local_hub(folder: Path) -> Iterator[None]:
    """SAELens' readers of the hub find the files of one folder, whatever they ask for."""

    def shapes(_repository: str, filename: str) -> dict[str, list[int]]:
        return {
            name: list(tensor.shape)
            for name, tensor in load_file(folder / Path(filename).name).items()
        }

    def download(repo_id: str, filename: str, **_more: Any) -> str:
        path = next(folder.rglob(Path(filename).name), None)
        if path is None:
            raise hub.EntryNotFoundError(filename)
        return str(path)

    kept = hub.hf_hub_download, hub.get_safetensors_tensor_shapes
    hub.hf_hub_download, hub.get_safetensors_tensor_shapes = download, shapes
    try:
        yield
    finally:
        hub.hf_hub_download, hub.get_safetensors_tensor_shapes = kept


def read_hub(
    folder: Path, reader: Any, repository: str, place: str, size: Size, scale: float = 1.0
) -> Coder:
    """An SAE as SAELens makes it of a published folder."""
    with local_hub(folder):
        overrides = {"d_in": size.width, "d_sae": size.latents, "dtype": "float32"}
        config, state, _ = reader(repository, place, "cpu", False, overrides)
    config = hub.handle_config_defaulting(config)
    kind = sae_lens.SAE.get_sae_config_class_for_architecture(config["architecture"])
    sae = sae_lens.SAE.get_sae_class_for_architecture(config["architecture"])(
        kind.from_dict(config)
    )
    sae.load_state_dict(
        {name: value.clone() for name, value in state.items() if name in sae.state_dict()}
    )
    if scale != 1.0:
        sae.fold_activation_norm_scaling_factor(scale)
    return of_saelens(sae)


def random_jumprelu(size: Size, d_out: int) -> dict[str, Tensor]:
    return {
        "W_enc": torch.randn(size.width, size.latents) * size.width**-0.5,
        "W_dec": torch.randn(size.latents, d_out) * d_out**-0.5,
        "b_enc": torch.randn(size.latents) * 0.5,
        "b_dec": torch.randn(d_out) * 0.5,
        "threshold": torch.rand(size.latents) * 0.5,
    }


def read_gemma_scope(folder: Path, size: Size) -> Coder:
    place = "layer_12/width_16k/average_l0_82"
    return read_hub(
        folder, hub.gemma_2_sae_huggingface_loader, "google/gemma-scope-2b-pt-res", place, size
    )


def write_gemma_scope(root: Path, size: Size, x: Tensor) -> None:
    folder = root / "gemma_scope-res"
    folder.mkdir(parents=True)
    tensors = random_jumprelu(size, size.width)
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in tensors.items()})
    note(folder, read_gemma_scope(folder, size), x, size.latents)


def write_gemma_scope_2(root: Path, size: Size, x: Tensor) -> None:
    places = {
        "resid_post": "resid_post/layer_7_width_16k_l0_medium",
        "transcoder": "transcoder/layer_7_width_16k_l0_small_affine",
    }
    for name, place in places.items():
        folder = root / f"gemma_scope_2-{name}"
        folder.mkdir(parents=True)
        d_out = size.width + (name == "transcoder")
        lower = {
            key.replace("W_", "w_"): value for key, value in random_jumprelu(size, d_out).items()
        }
        config = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-1b-pt",
            "hf_hook_point_in": "model.layers.7.output",
        }
        if name == "transcoder":
            lower["affine_skip_connection"] = torch.randn(size.width, d_out) * 0.5
            config |= {"affine_connection": True, "hf_hook_point_out": "model.layers.7.mlp.output"}
        save_file(lower, folder / "params.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        repository = "google/gemma-scope-2-1b-pt"
        note(
            folder,
            read_hub(folder, hub.gemma_3_sae_huggingface_loader, repository, place, size),
            x,
            size.latents,
        )


def write_llama_scope(root: Path, size: Size, x: Tensor) -> None:
    """Decoder rows of unit norm: other norms SAELens leaves out of the choice of latents."""
    norm = 2.5
    for name in ("2024", "2025"):
        folder = root / f"llama_scope-{name}"
        (folder / "checkpoints").mkdir(parents=True)
        weights = random_jumprelu(size, size.width)
        rows = weights["W_dec"] / weights["W_dec"].norm(dim=1, keepdim=True)
        tensors = {
            "encoder.weight": weights["W_enc"].T.contiguous(),
            "encoder.bias": weights["b_enc"],
            "decoder.weight": rows.T.contiguous(),
            "decoder.bias": weights["b_dec"],
        }
        config: dict[str, Any] = {
            "d_model": size.width,
            "act_fn": "jumprelu",
            "hook_point_in": HOOK,
            "norm_activation": "dataset-wise",
            "sparsity_include_decoder_norm": True,
        }
        if name == "2024":
            norms = {"in": norm, "out": norm}
            config |= {
                "d_sae": size.latents,
                "jump_relu_threshold": 0.3,
                "dataset_average_activation_norm": norms,
            }
            save_file(tensors, folder / "checkpoints" / "final.safetensors")
            (folder / "hyperparams.json").write_text(json.dumps(config))
            reader, repository = (
                hub.llama_scope_sae_huggingface_loader,
                "fnlp/Llama3_1-8B-Base-LXR-8x",
            )
        else:
            config |= {"sae_type": "sae", "expansion_factor": size.latents / size.width}
            tensors["log_jumprelu_threshold"] = weights["threshold"].clamp(min=0.01).log()
            tensors[f"dataset_average_activation_norm.{HOOK}"] = torch.tensor(norm)
            save_file(tensors, folder / "sae_weights.safetensors")
            (folder / "config.json").write_text(json.dumps(config))
            reader, repository = (
                hub.llama_scope_r1_distill_sae_huggingface_loader,
                "fnlp/Llama-Scope-R1-Distill",
            )
        note(
            folder,
            read_hub(folder, reader, repository, "L3R", size, size.width**0.5 / norm),
            x,
            size.latents,
        )


READERS: dict[str, Callable[[Path, Size], Coder]] = {
    "saelens": read_saelens,
    "dictionary_learning": lambda folder, size: read_dictionary(folder),
    "sparsify": lambda folder, size: of_sparsify(SparseCoder.load_from_disk(folder)),
    "gemma_scope": read_gemma_scope,
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["write", "read"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--latents", type=int, default=256)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    size = Size(options.width, options.latents, options.rows)
    torch.manual_seed(0)
    if options.what == "write":
        x = torch.randn(size.rows, size.width)
        for write in (
            write_saelens,
            write_dictionaries,
            write_sparsify,
            write_gemma_scope,
            write_gemma_scope_2,
            write_llama_scope,
        ):
            write(options.folder, size, x)
        return
    for folder in sorted(path.parent for path in options.folder.glob("*/x.safetensors")):
        coder = READERS[folder.name.split("-")[0]](folder, size)
        note(folder, coder, load_file(folder / "x.safetensors")["x"], size.latents)


if __name__ == "__main__":
    main()
