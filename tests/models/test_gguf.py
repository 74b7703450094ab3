"""A GGUF file becomes a checkpoint with its own numbers, its own tokens and its own template."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_files import (
    ARCHITECTURES,
    MERGES,
    SPECIAL,
    TEMPLATE,
    tiny_gguf_model,
    vocabulary,
    write_gguf,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from saeflow.errors import SaeflowError
from saeflow.models import gguf as conversion
from saeflow.models.io import convert_model
from saeflow.models.language_model import load_model, load_tokenizer
from saeflow.models.running import logits

PIECES = [
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("▁the", "the", "▁t", "th", "he", "▁", "t", "h", "e", "a"),
]
HOSTILE = [
    "the  the   2024 and   12in 12",
    "é É naïve 日本語 🤖🏳️‍🌈 \u200b\ufeff\u202e",
    "\t\n\r\n  \x00\x07 end ",
    "<|im_start|>user\nthe<|im_end|> <|endoftext|><|im_",
    "it's THE'LL don’t ٣٤ x²",
    "",
    " ",
]


def converted(tmp_path: Path, family: str = "llama", **changes: Any) -> Path:
    write_gguf(tmp_path / "m.gguf", tiny_gguf_model(family), family, **changes)
    convert_model(tmp_path / "m.gguf", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def refusal(tmp_path: Path, file: Path) -> str:
    with pytest.raises(SaeflowError) as raised:
        convert_model(file, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_weights_and_logits_are_those_of_the_numbers_in_the_file(
    tmp_path: Path, family: str
) -> None:
    model = tiny_gguf_model(family)
    expected = write_gguf(tmp_path / "m.gguf", model, family)
    convert_model(tmp_path / "m.gguf", tmp_path / "checkpoint")
    written = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(written[name], values), name
        assert written[name].dtype == torch.float32
    model.load_state_dict(expected, strict=False)
    model.tie_weights()
    tokens = torch.randint(
        3, len(vocabulary()), (2, 12), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        plain = model(tokens).logits
    torch.testing.assert_close(
        logits(load_model(tmp_path / "checkpoint"), tokens), plain, rtol=1e-5, atol=1e-5
    )


def test_k_quants_are_taken_apart_as_the_package_does(tmp_path: Path) -> None:
    """The package writes none, so blocks are random bytes with small scales."""
    model = tiny_gguf_model("llama", intermediate_size=256)
    write_gguf(tmp_path / "m.gguf", model)
    draw = np.random.default_rng(0)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), kind, sub_type=sub)
    expected = {}
    for tensor in reader.tensors:
        data, kind = np.array(tensor.data), tensor.tensor_type
        if tensor.name.endswith("ffn_down.weight"):
            kind = [gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K][
                len(expected) % 2
            ]
            size = gguf.GGML_QUANT_SIZES[kind][1]
            data = draw.integers(0, 256, (64, size), dtype=np.uint8)
            small = np.full((64, 1), 1e-3, dtype=np.float16).view(np.uint8)
            if kind == gguf.GGMLQuantizationType.Q4_K:
                data[:, :2], data[:, 2:4] = small, small
            else:
                data[:, -2:] = small
            layer = int(tensor.name.split(".")[1])
            expected[f"model.layers.{layer}.mlp.down_proj.weight"] = gguf.dequantize(data, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert_model(tmp_path / "k.gguf", tmp_path / "checkpoint")
    written = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert len(expected) == 3
    for name, values in expected.items():
        assert np.array_equal(written[name].numpy(), values), name


def test_a_large_model_is_written_in_several_files_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = converted(tmp_path)
    monkeypatch.setattr(conversion, "BYTES_PER_FILE", 100_000)
    convert_model(tmp_path / "m.gguf", tmp_path / "several")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    tokens = torch.arange(3, 15)[None]
    assert torch.equal(
        logits(load_model(whole), tokens), logits(load_model(tmp_path / "several"), tokens)
    )


@pytest.mark.parametrize(
    ("cut", "ways"),
    [
        (
            "smollm",
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)],
        ),
        ("gpt-2", [pre_tokenizers.ByteLevel(False)]),
    ],
)
def test_text_becomes_the_tokens_of_a_tokenizer_built_by_hand_and_comes_back(
    tmp_path: Path, cut: str, ways: list[Any]
) -> None:
    numbers = {token: i for i, token in enumerate(vocabulary())}
    by_hand = Tokenizer(models.BPE(numbers, [tuple(merge.split()) for merge in MERGES]))
    by_hand.pre_tokenizer = pre_tokenizers.Sequence(ways)
    by_hand.decoder = decoders.ByteLevel()
    by_hand.add_special_tokens(list(SPECIAL))
    tokenizer = load_tokenizer(converted(tmp_path, cut=cut))
    for text in HOSTILE:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == by_hand.encode(text, add_special_tokens=False).ids, text
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_template_special_tokens_and_ends_of_texts_come_along(tmp_path: Path) -> None:
    lm = load_model(converted(tmp_path, **{"tokenizer.ggml.eot_token_id": 0}))
    assert lm.tokenizer.chat_template == TEMPLATE
    assert (lm.bos_id, set(lm.end_ids)) == (1, {0, 2})
    said = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "the"}], tokenize=False, add_generation_prompt=True
    )
    assert said == "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"
    assert lm.context == 64


@pytest.mark.parametrize("opens_with_space", [True, False])
def test_text_of_a_sentencepiece_vocabulary_comes_back(
    tmp_path: Path, opens_with_space: bool
) -> None:
    model = tiny_gguf_model("llama", vocab_size=len(PIECES))
    write_gguf(tmp_path / "m.gguf", model, pieces=PIECES, opens_with_space=opens_with_space)
    convert_model(tmp_path / "m.gguf", tmp_path / "checkpoint")
    tokenizer = load_tokenizer(tmp_path / "checkpoint")
    tokens = tokenizer.tokenize("the 🤖")
    start = ["▁the"] if opens_with_space else ["the"]
    assert tokens == [*start, "▁", "<0xF0>", "<0x9F>", "<0xA4>", "<0x96>"]
    assert tokenizer.tokenize(" the") == (["▁", "▁the"] if opens_with_space else ["▁the"])
    for text in ("the  the 2024", " the", "   ", "", "é 日本語 🤖\u200b", "\t\n the\x00", "a", " "):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_frequencies_of_llama_3_are_kept(tmp_path: Path) -> None:
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = tiny_gguf_model("llama", rope_parameters=scaled)
    plain = 1 / 500_000.0 ** (torch.arange(0, 16, 2).float() / 16)
    factors = plain / model.model.rotary_emb.inv_freq
    assert factors.max() == 8
    add = gguf.GGUFWriter.write_header_to_file

    def with_factors(writer: gguf.GGUFWriter, *rest: Any, **options: Any) -> None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
        add(writer, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_header_to_file", with_factors)
        write_gguf(tmp_path / "m.gguf", model)
    convert_model(tmp_path / "m.gguf", tmp_path / "checkpoint")
    loaded = load_model(tmp_path / "checkpoint")
    assert torch.equal(loaded.model.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_a_file_that_is_cut_anywhere_is_one_sentence(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", tiny_gguf_model("llama"))
    whole = (tmp_path / "m.gguf").read_bytes()
    for length in (0, 3, 20, 100, 4_000, len(whole) // 2, len(whole) - 1_000):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        assert "cut short or damaged" in refusal(tmp_path, tmp_path / "cut.gguf"), length


def test_damaged_metadata_are_one_sentence(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", tiny_gguf_model("llama"))
    whole = bytearray((tmp_path / "m.gguf").read_bytes())
    for place in (0, 4, 12, 16, 24, 31, 60):
        damaged = whole.copy()
        damaged[place : place + 4] = b"\xff\xff\xff\xff"
        (tmp_path / "bad.gguf").write_bytes(damaged)
        assert str(tmp_path / "bad.gguf") in refusal(tmp_path, tmp_path / "bad.gguf"), place


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba' are not read from GGUF"),
        ({"llama.block_count": 2}, "holds blk.2."),
        ({"llama.block_count": 4}, "lacks the tensor blk.3."),
        ({"llama.feed_forward_length": 128}, "its tensor blk.0.ffn_gate.weight is (96, 64)"),
        ({"llama.rope.scaling.type": "yarn"}, "scales rotary positions by 'yarn'"),
        ({"tokenizer.ggml.pre": "of-tomorrow"}, "cuts text in the way 'of-tomorrow'"),
        ({"tokenizer.ggml.model": "bert"}, "has a tokenizer that cannot be read"),
        ({"llama.attention.head_count": 0}, "has metadata that no model follows from"),
        ({"split.count": 3}, "is one of 3 parts"),
    ],
)
def test_what_no_checkpoint_can_be_made_of_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_gguf(tmp_path / "m.gguf", tiny_gguf_model("llama"), **changes)
    assert said in refusal(tmp_path, tmp_path / "m.gguf")


def test_the_command_says_one_sentence_and_makes_nothing(tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "saeflow", "model", "convert"]
    command += ["--path", tmp_path / "absent.gguf", "--output", tmp_path / "never"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"saeflow: {tmp_path}/absent.gguf: no such file; check model.path\n"
    assert not (tmp_path / "never").exists()


def test_the_checkpoint_says_which_file_it_was_made_of(tmp_path: Path) -> None:
    record = json.loads((converted(tmp_path) / "gguf.json").read_text())
    assert record["file"] == "m.gguf"
    assert record["bytes"] == (tmp_path / "m.gguf").stat().st_size
