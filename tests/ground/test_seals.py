"""One flipped byte in any file that other jobs compute with is noticed, or changes nothing that is
read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from effect_blocks import block_of
from tiny_models import save_tiny_model, tiny_tokenizer

from saeflow import seals
from saeflow.activations.io import MANIFEST, ActivationStore
from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import (
    load_approximation,
    load_baseline,
    merge_blocks,
    open_effects,
    read_block,
    save_approximation,
    save_baseline,
    write_block,
)
from saeflow.analyses.effects.measure import Baseline
from saeflow.analyses.steering.choice import CANDIDATES_SCHEMA, LatentChoice
from saeflow.analyses.steering.io import (
    Contrast,
    SteeringVector,
    load_choice,
    load_contrast,
    load_vector,
    save_choice,
    save_contrast,
    save_vector,
)
from saeflow.artifacts import write_sealed_json
from saeflow.checkpoints import load_checkpoint, save_checkpoint
from saeflow.corpora.io import load_blocks, save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import DamagedError, SaeflowError
from saeflow.models.io import save_model
from saeflow.models.language_model import load_model
from saeflow.saes.io import load_sae, save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import read_table, write_table

GENERATOR = torch.Generator().manual_seed(0)
CANDIDATES = pl.DataFrame(
    [[1, 3, 0.5, 0.9, 0.1, 0.0, 0.1, 2.0, 0.9]], schema=CANDIDATES_SCHEMA, orient="row"
)
MANIFEST_OF_NONE = {
    "hook": "blocks.1.hook_resid_post",
    "model": "lm",
    "dtype": "float32",
    "rows": 8,
    "d_model": 2,
    "mean": [0.25, 0.5],
    "variance": 1.5,
    "mean_norm": 3.25,
    "shards": [],
}


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


class Kind(NamedTuple):
    """A kind of file: how it is written into a folder, under which name, and how it is read."""

    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], Any]


def write_effects(folder: Path) -> None:
    write_block(folder / "block", block_of(range(6)), 0, {"hook": "h"})
    merge_blocks([folder / "block"], folder / "effects.h5")


def read_effects(folder: Path) -> Any:
    with open_effects(folder / "effects.h5") as table:
        return [
            table.vectors,
            table.effects[:],
            table.scale,
            table.status,
            table.loss,
            table.metadata,
        ]


def write_model(folder: Path) -> None:
    loaded = load_model(save_tiny_model(folder / "tiny", "llama"))
    trained = type(
        "Trained",
        (),
        {"model": loaded.model, "tokenizer": tiny_tokenizer(), "curve": pl.DataFrame()},
    )
    save_model(folder / "model", trained, {})  # type: ignore[arg-type]


def read_model(folder: Path) -> Any:
    return list(load_model(folder / "model").model.state_dict().values())


KINDS = {
    "tokens": Kind(
        "blocks.safetensors",
        lambda folder: save_blocks(
            folder / "blocks.safetensors",
            TokenBlocks(np.arange(64, dtype=np.int32).reshape(8, 8), {}, {"x": ["a"]}),
        ),
        lambda folder: [load_blocks(folder / "blocks.safetensors", slice(2, 5)).tokens],
    ),
    "block of effects": Kind(
        "block",
        lambda folder: write_block(folder / "block", block_of(range(4)), 0, {"hook": "h"}),
        lambda folder: [*read_block(folder / "block")[0], read_block(folder / "block")[1]],
    ),
    "table of effects": Kind("effects.h5", write_effects, read_effects),
    "baseline": Kind(
        "baseline.safetensors",
        lambda folder: save_baseline(
            folder / "baseline.safetensors",
            Baseline(random(5), random(5), 8, 2.5, None, 16),
            {"mean_norm": 4.25},
        ),
        lambda folder: list(load_baseline(folder / "baseline.safetensors")),
    ),
    "approximator": Kind(
        "approximator.safetensors",
        lambda folder: save_approximation(
            folder, Approximation(random(3, 5), random(5), random(3, 3), random(3)), {}
        ),
        lambda folder: list(load_approximation(folder)),
    ),
    "vector": Kind(
        "vector.safetensors",
        lambda folder: save_vector(
            folder / "vector.safetensors", SteeringVector(random(6), {"norm": 1.5, "hook": "h"})
        ),
        lambda folder: list(load_vector(folder / "vector.safetensors")),
    ),
    "contrast": Kind(
        "contrast.safetensors",
        lambda folder: save_contrast(
            folder / "contrast.safetensors",
            Contrast(*(random(2, 3) for _ in range(4)), random(5), torch.tensor([True, False])),
        ),
        lambda folder: list(load_contrast(folder / "contrast.safetensors")),
    ),
    "SAE": Kind(
        "sae_weights.safetensors",
        lambda folder: save_sae(
            folder, SAE("standard", random(3, 5), torch.eye(5)[:, :3] + 1, random(5), random(3))
        ),
        lambda folder: [
            getattr(load_sae(folder), name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")
        ],
    ),
    "sae's config": Kind(
        "cfg.json",
        lambda folder: save_sae(
            folder, SAE("topk", random(3, 5), torch.eye(5)[:, :3] + 1, random(5), random(3), k=2)
        ),
        lambda folder: [load_sae(folder).k, load_sae(folder).architecture],
    ),
    "model": Kind("model/model.safetensors", write_model, read_model),
    "model's config": Kind("model/config.json", write_model, read_model),
    "model's tokenizer": Kind("model/tokenizer.json", write_model, read_model),
    "table": Kind(
        "table.parquet",
        lambda folder: write_table(
            folder / "table.parquet", pl.DataFrame({"goal": ["a", "b"], "kl": [0.5, None]})
        ),
        lambda folder: [read_table(folder / "table.parquet").to_dicts()],
    ),
    "latents": Kind(
        "latents.json",
        lambda folder: save_choice(folder / "latents.json", LatentChoice({3: 1.0}, CANDIDATES)),
        lambda folder: [load_choice(folder / "latents.json").weights, CANDIDATES.to_dicts()],
    ),
    "manifest": Kind(
        MANIFEST,
        lambda folder: write_sealed_json(folder / MANIFEST, MANIFEST_OF_NONE),
        lambda folder: [
            vars(ActivationStore.open(folder))["mean_norm"],
            ActivationStore.open(folder).mean,
        ],
    ),
    "checkpoint": Kind(
        "checkpoint.pt",
        lambda folder: save_checkpoint(
            folder / "checkpoint.pt", "x", {"step": 4, "weights": random(5_000)}
        ),
        lambda folder: list((load_checkpoint(folder / "checkpoint.pt", "x") or refused()).values()),
    ),
}


def refused() -> Any:
    """A checkpoint that is not taken up is as good as a sentence: the training begins again."""
    raise SaeflowError("not taken up")


def equal(first: list[Any], other: list[Any]) -> bool:
    return len(first) == len(other) and all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)
        if isinstance(a, torch.Tensor | np.ndarray) and isinstance(b, torch.Tensor | np.ndarray)
        else a == b
        for a, b in zip(first, other, strict=True)
    )


def places(size: int) -> Iterator[int]:
    """Where bytes are flipped: all over the file, and closer together at both ends, where headers
    are."""
    yield from sorted(
        {
            *range(0, size, max(1, size // 40)),
            *range(0, min(size, 400), 13),
            *range(size - 60, size, 7),
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_told_or_changes_nothing(kind: str, tmp_path: Path) -> None:
    name, write, read = KINDS[kind]
    write(tmp_path)
    file, expected = tmp_path / name, read(tmp_path)
    whole = file.read_bytes()
    noticed, sentences = 0, []
    for place in (tried := [place for place in places(len(whole)) if place >= 0]):
        damaged = bytearray(whole)
        damaged[place] ^= 0b0001_0000
        file.write_bytes(damaged)
        try:
            values = read(tmp_path)
        except SaeflowError as error:
            noticed += 1
            sentences.append(str(error))
        else:
            assert equal(values, expected), (
                f"byte {place} of {len(whole)} changes what is read, and nobody says so"
            )
    assert all(len(sentence.splitlines()) == 1 for sentence in sentences)
    assert noticed > 0.75 * len(tried), f"{noticed} of {len(tried)} flips are told"
    file.write_bytes(whole)
    assert equal(read(tmp_path), expected)


def test_a_damaged_file_of_the_study_is_to_be_removed_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(path, pl.DataFrame({"a": [1, 2]}))
    whole = bytearray(path.read_bytes())
    whole[20] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DamagedError) as caught:
        read_table(path)
    assert caught.value.remade == [path]


def test_the_seal_is_the_crc_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    import zlib

    path = tmp_path / "table.parquet"
    write_table(path, pl.DataFrame({"a": range(100_000)}))
    whole = path.read_bytes()
    place = whole.rindex(b"saeflow-crc32:") + 14
    blank = whole[:place] + b"00000000" + whole[place + 8 :]
    assert whole[place : place + 8] == f"{zlib.crc32(blank):08x}".encode()


@pytest.mark.parametrize("piece", [1, 3, 7, 1000])
def test_pieces_of_any_size_give_the_same_checksum(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "pieces"):
        (tmp_path / name).write_bytes(b"x" * 50 + seals.BLANK.encode() + b"y" * 30)
    seals.seal(tmp_path / "whole")
    monkeypatch.setattr(seals, "_PIECE", piece)
    seals.seal(tmp_path / "pieces")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()
    seals.check(tmp_path / "whole")


def test_equal_tensors_are_equal_bytes_though_their_library_shuffles_metadata(
    tmp_path: Path,
) -> None:
    vector = SteeringVector(torch.ones(4), {"goal": "naïve “café” \x1f\\", "hook": "h"})
    for number in range(12):
        save_vector(tmp_path / str(number), vector)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(12)}) == 1
    assert load_vector(tmp_path / "0").metadata == vector.metadata


def test_files_of_others_are_taken_as_they_are(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "table.parquet")
    assert read_table(tmp_path / "table.parquet")["a"].to_list() == [1]
    (tmp_path / "empty").touch()
    seals.check(tmp_path / "empty")


def test_json_that_was_edited_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "latents.json"
    save_choice(path, LatentChoice({3: 1.0}, CANDIDATES))
    edited = json.loads(path.read_text())
    edited["latents"] = {"4": 1.0}
    path.write_text(json.dumps(edited))
    with pytest.raises(
        SaeflowError, match=r"or was edited .* remove its 'saeflow_seal' to have it taken as it is"
    ):
        load_choice(path)
    assert path.exists()
    del edited["saeflow_seal"]
    path.write_text(json.dumps(edited))
    assert load_choice(path).weights == {4: 1.0}
