"""Loading, saving and linking of checkpoint directories, and what is said when it cannot be
done."""

from __future__ import annotations

import json

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    FAMILY_NAMES,
    N_LAYERS,
    save_tiny_model,
    tiny_language_model,
    tiny_model,
    tiny_tokenizer,
    tiny_tokens,
)

from saeflow import products
from saeflow.artifacts import read_json
from saeflow.errors import SaeflowError
from saeflow.models.fast_layers import with_fast_layers
from saeflow.models.io import link_model, save_model
from saeflow.models.language_model import bos_id, load_model, load_tokenizer
from saeflow.models.running import logits
from saeflow.models.training import TrainedModel


@pytest.fixture
def checkpoint(tmp_path):
    return save_tiny_model(tmp_path / "checkpoint", "llama")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_saved_model_of_every_family_loads_to_the_same_logits(family, tmp_path):
    lm = load_model(save_tiny_model(tmp_path / family, family))
    assert torch.equal(
        logits(lm, tiny_tokens()), logits(tiny_language_model(family), tiny_tokens())
    )
    assert (lm.n_layers, lm.d_model, lm.d_vocab, lm.context, lm.bos_id) == (N_LAYERS, 32, 64, 64, 0)
    assert (lm.device, lm.dtype) == (torch.device("cpu"), torch.float32)
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_loaded_model_has_as_many_parameters_as_transformers_counts(family, tied, tmp_path):
    """Biases count, and an unembedding that is the embedding counts once."""
    plain = tiny_model(family, tie_word_embeddings=tied)
    lm = load_model(save_tiny_model(tmp_path / family, family, tie_word_embeddings=tied))
    assert sum(parameter.numel() for parameter in lm.model.parameters()) == plain.num_parameters()
    assert (
        lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    ) is tied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_run_in_the_dtype_asked_for_where_the_processor_has_it(
    checkpoint, dtype, monkeypatch, capsys
):
    name = str(dtype).removeprefix("torch.")
    monkeypatch.setitem(products._SUPPORTED, dtype, lambda: True)
    half = load_model(checkpoint, dtype=name)
    assert half.dtype is dtype
    assert not capsys.readouterr().err
    monkeypatch.setitem(products._SUPPORTED, dtype, lambda: False)
    products._tell_of_float32.cache_clear()
    wide, _ = (load_model(checkpoint, dtype=name) for _ in range(2))
    assert wide.dtype is torch.float32
    for own, rounded in zip(wide.model.parameters(), half.model.parameters(), strict=True):
        assert torch.equal(own, rounded.float())
    assert capsys.readouterr().err == (
        f"saeflow: warning: this processor has no instructions for {name}; what was to be computed "
        "in it is computed in float32, with twice the memory\n"
    )


def test_a_dtype_that_is_not_known_is_refused(checkpoint):
    with pytest.raises(
        SaeflowError, match="dtype 'int8' is not known; use one of float32, bfloat16, float16"
    ):
        load_model(checkpoint, dtype="int8")


def test_text_is_opened_with_bos_on_request(checkpoint):
    lm = load_model(checkpoint)
    assert lm.tokenize("the cat sat.") == [0, 3, 5, 7, 15]
    assert lm.tokenize("the cat", bos=False) == [3, 5]
    assert lm.tokenize("") == [0]


def test_bos_is_the_tokenizers_or_the_configs_or_eos():
    tokenizer = tiny_tokenizer()
    assert bos_id(tokenizer, 7) == 0
    tokenizer.bos_token = None
    assert bos_id(tokenizer, 7) == 7
    assert bos_id(tokenizer) == 1
    tokenizer.eos_token = None
    with pytest.raises(SaeflowError, match="names no token to open a text with"):
        bos_id(tokenizer)


def test_a_missing_directory_is_told(tmp_path):
    with pytest.raises(SaeflowError, match="nowhere: no such model directory"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("config.json", r"has no config\.json"),
        ("model.safetensors", r"has no weights in \.safetensors files"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_missing_file_is_told(checkpoint, file, complaint):
    (checkpoint / file).unlink()
    with pytest.raises(SaeflowError, match=complaint):
        load_model(checkpoint)


def test_an_unsupported_architecture_is_told_with_the_supported_ones(checkpoint):
    (checkpoint / "config.json").write_text('{"model_type": "one-of-my-own"}')
    with pytest.raises(
        SaeflowError,
        match=r"type 'one-of-my-own' are not supported; supported are llama, mistral, .*gpt_neox, "
        "and the decoders of transformers that TransformerLens has an adapter for",
    ):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", "[]", "holds a list where names and values are needed"),
        ("config.json", "[" * 100_000, "nested too deep"),
        ("config.json", {"model_type": ["llama"]}, "models of type .+ are not supported"),
        (
            "config.json",
            {"num_hidden_layers": 10**9},
            "says 1000000000 layers, and its weights hold",
        ),
        ("config.json", {"num_hidden_layers": -1}, "says num_hidden_layers '-1', which must be"),
        ("config.json", {"hidden_size": "x"}, "says hidden_size 'x', which must be"),
        ("config.json", {"vocab_size": 10**12}, "says vocab_size '1000000000000', which must"),
        ("config.json", {"rope_parameters": {"rope_type": "of-mine"}}, "'of-mine' is not known"),
        ("model.json", '{"path": "/"}', "does not say which files it stands for"),
        (
            "model.json",
            '{"path": "/", "files": {"a": 1}}',
            "does not say which files it stands for",
        ),
        ("model.json", "[1]", "holds a list where names and values are needed"),
        ("model.safetensors.index.json", "{}", "has no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": [1]}', "has no weight_map"),
    ],
)
def test_a_file_of_a_model_that_was_made_to_hurt_is_one_sentence(
    checkpoint, name, content, complaint
):
    if isinstance(content, dict):
        content = json.dumps(json.loads((checkpoint / name).read_text()) | content)
    (checkpoint / name).write_text(content)
    (checkpoint / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(SaeflowError, match=complaint) as refusal:
        load_model(checkpoint)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_truncated_file_is_told_in_one_line(checkpoint, file):
    content = (checkpoint / file).read_bytes()
    (checkpoint / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(SaeflowError, match="cannot be read") as caught:
        load_model(checkpoint)
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_tensor_are_refused_rather_than_made_up(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SaeflowError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(checkpoint)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_told(checkpoint):
    for device in ("cuda", "gpu"):
        with pytest.raises(SaeflowError, match=f"device '{device}' is not there"):
            load_model(checkpoint, device=device)


def test_a_trained_model_is_saved_whole_and_replaces_an_older_one(tmp_path):
    directory = tmp_path / "models" / "tiny"
    model, curve = tiny_model("llama"), pl.DataFrame({"step": [1]})
    for loss in (2.5, 1.5):
        save_model(directory, TrainedModel(model, tiny_tokenizer(), curve), {"loss": loss})
    assert read_json(directory / "metrics.json") == {"loss": 1.5}
    assert pl.read_parquet(directory / "training.parquet").equals(curve)
    with torch.no_grad():
        # exchanged twice, the saved weights and the original ones give equal bits
        loaded, expected = (
            logits(load_model(directory), tiny_tokens()),
            with_fast_layers(model)(tiny_tokens()).logits,
        )
    assert torch.equal(loaded, expected)
    assert [path.name for path in directory.parent.iterdir()] == ["tiny"]


def test_a_linked_directory_stands_for_the_checkpoint(checkpoint, tmp_path):
    linked = tmp_path / "linked"
    link_model(checkpoint, linked)
    assert sorted(path.name for path in linked.iterdir()) == ["checksums.json", "model.json"]
    record = json.loads((linked / "model.json").read_text())
    assert set(record["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert torch.equal(
        logits(load_model(linked), tiny_tokens()), logits(load_model(checkpoint), tiny_tokens())
    )
    assert load_tokenizer(linked).bos_token == "<bos>"


def test_a_linked_checkpoint_that_changed_or_went_is_told(checkpoint, tmp_path):
    linked = tmp_path / "linked"
    link_model(checkpoint, linked)
    with open(checkpoint / "model.safetensors", "ab") as file:
        file.write(b"more")
    with pytest.raises(SaeflowError, match=r"model\.safetensors: has changed since"):
        load_model(linked)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(SaeflowError, match=r"model\.safetensors: has gone since"):
        load_model(linked)


def test_only_a_checkpoint_can_be_linked(checkpoint, tmp_path):
    with pytest.raises(SaeflowError, match="no such model directory"):
        link_model(tmp_path / "nowhere", tmp_path / "linked")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(SaeflowError, match=r"has no weights as model\.safetensors"):
        link_model(checkpoint, tmp_path / "linked")
    assert not (tmp_path / "linked").exists()


def test_weights_in_several_files_are_linked_whole_or_not_at_all(tmp_path):
    checkpoint = tmp_path / "sharded"
    tiny_model("llama").save_pretrained(checkpoint, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(checkpoint)
    shards = sorted(path.name for path in checkpoint.glob("*.safetensors"))
    assert len(shards) > 1
    link_model(checkpoint, tmp_path / "linked")
    assert set(shards) < set(json.loads((tmp_path / "linked" / "model.json").read_text())["files"])
    assert torch.equal(
        logits(load_model(tmp_path / "linked"), tiny_tokens()),
        logits(load_model(checkpoint), tiny_tokens()),
    )
    (checkpoint / shards[1]).unlink()
    with pytest.raises(SaeflowError, match=f"lacks {shards[1]}"):
        link_model(checkpoint, tmp_path / "again")
