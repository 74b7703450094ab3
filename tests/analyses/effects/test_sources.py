"""Vectors to measure: where they come from, which of them, and what is wrong with a source, told in
one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from steered import D_MODEL, D_SAE, HOOK, tiny_sae, unit_rows
from studies import study_config

from saeflow.analyses.effects.candidates import KINDS, candidate_vectors, check_rows
from saeflow.analyses.effects.counts import block_count, block_ids, vector_count, vector_range
from saeflow.analyses.effects.settings import Vectors
from saeflow.analyses.effects.sources import load_rows
from saeflow.artifacts import read_json, write_json
from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE

ROWS = tiny_sae().W_dec
M = torch.randn(D_MODEL, D_SAE, generator=torch.Generator().manual_seed(1))
B = torch.randn(D_SAE, generator=torch.Generator().manual_seed(2))


def file_of(folder: Path, **tensors: torch.Tensor) -> Path:
    path = folder / "some.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def wide_sae(folder: Path, hook: str = HOOK, latents: int = 96) -> Path:
    """An SAE of twice as many latents; returns its weights' file."""
    W_dec = unit_rows(latents, seed=5)
    zeros = torch.zeros(latents), torch.zeros(D_MODEL)
    save_sae(
        folder / "wide",
        SAE("standard", W_dec.T.contiguous(), W_dec, *zeros, metadata={"hook_name": hook}),
    )
    return folder / "wide" / "sae_weights.safetensors"


# --- which vectors --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_depends_on_its_number_alone_and_has_unit_norm(kind: Any) -> None:
    settings = Vectors(kind=kind, path="some" if kind in ("file", "sae_ts") else None)
    together = candidate_vectors(settings, ROWS * 3, range(12), seed=1)
    assert torch.equal(together[5:7], candidate_vectors(settings, ROWS * 3, [5, 6], seed=1))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(12))
    assert len(together.unique(dim=0)) == 12


def test_mixtures_lie_between_two_rows() -> None:
    mixed = candidate_vectors(Vectors(kind="mixtures"), torch.eye(D_MODEL) * 3, range(20), seed=1)
    assert (mixed > 0).sum(1).tolist() == [2] * 20


def test_blocks_cover_a_range_once() -> None:
    settings = Vectors(range=[5, 15], block_size=4)
    blocks = [list(block_ids(settings, D_SAE, block)) for block in range(3)]
    assert [index for block in blocks for index in block] == list(range(5, 15))
    with pytest.raises(SaeflowError, match="block 3 is empty; 10 vectors make 3 blocks of 4"):
        block_ids(settings, D_SAE, 3)


def test_a_vector_keeps_its_number_when_the_range_grows() -> None:
    part, whole = (
        candidate_vectors(Vectors(kind="random"), ROWS, ids, seed=3)
        for ids in (range(4, 6), range(9))
    )
    assert torch.equal(part, whole[4:6])


@pytest.mark.parametrize("kind", ["mixtures", "random"])
def test_drawn_vectors_are_as_many_as_is_asked_for(kind: Any) -> None:
    assert len(vector_range(Vectors(kind=kind), 48)) == 48
    assert vector_range(Vectors(kind=kind, range=[100, 900]), 48) == range(100, 900)


def test_a_range_beyond_the_source_is_refused() -> None:
    with pytest.raises(
        SaeflowError, match=r"\[40, 49\] goes beyond the source, which has 48 vectors"
    ):
        vector_range(Vectors(range=[40, 49]), 48)
    with pytest.raises(SaeflowError, match="the source holds no vectors"):
        vector_range(Vectors(), 0)


# --- sources --------------------------------------------------------------------------------------


def test_the_rows_of_a_wider_sae_are_its_decoder(tmp_path: Path) -> None:
    rows = load_rows(Vectors(), wide_sae(tmp_path), HOOK, D_MODEL)
    torch.testing.assert_close(rows, unit_rows(96, seed=5))


def test_the_rows_of_a_file_are_those_of_the_tensor_that_is_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, vectors=ROWS.half(), others=M.T)
    assert torch.equal(
        load_rows(Vectors(kind="file", path=str(path)), path, HOOK, D_MODEL), ROWS.half().float()
    )
    other = Vectors(kind="file", path=str(path), tensor="others")
    assert torch.equal(load_rows(other, path, HOOK, D_MODEL), M.T)


def test_a_second_round_takes_the_sae_ts_vector_of_every_latent(tmp_path: Path) -> None:
    path = file_of(tmp_path, M=M, b=B)
    settings = Vectors(kind="sae_ts", path=str(path), bias_weight=0.5)
    rows = load_rows(settings, path, HOOK, D_MODEL)
    assert rows.shape == (D_SAE, D_MODEL)
    bias = M @ B
    expected = M[:, 7] / M[:, 7].norm() - 0.5 * bias / bias.norm()
    torch.testing.assert_close(rows[7], expected, atol=1e-5, rtol=0)
    vector = candidate_vectors(settings, rows, [7], seed=0)[0]
    torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=0)


# --- what is wrong with a source ------------------------------------------------------------------


def spoiled(row: int, value: float) -> torch.Tensor:
    rows = ROWS.clone()
    rows[row] = value
    return rows


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("rows", "spoil", "complaint"),
    [
        (torch.ones(4, 7), None, "its vectors are 7 wide and the model 32"),
        (
            spoiled(9, float("nan")),
            None,
            r"vector 9 holds NaN or infinity; .* leave it out \(effects.vectors.range\)",
        ),
        (ROWS * 0, None, r"vector 0 \(and 47 more\) is zero, and there is no other"),
        (torch.ones(D_MODEL), None, r"'vectors' of .* has shape \[32\]; it must be \[n, d_model\]"),
        (torch.ones(0, D_MODEL), None, "the source holds no vectors"),
        (ROWS, cut_short, "is no whole safetensors file .*; get it again"),
        (ROWS, Path.unlink, "does not exist; correct the path or make the file first"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, rows: torch.Tensor, spoil: Callable[[Path], None] | None, complaint: str
) -> None:
    path = file_of(tmp_path, vectors=rows)
    if spoil:
        spoil(path)
    with pytest.raises(SaeflowError, match=complaint) as caught:
        load_rows(Vectors(kind="file", path=str(path)), path, HOOK, D_MODEL)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "source" in complaint


def test_rows_outside_the_range_are_not_looked_at(tmp_path: Path) -> None:
    path = file_of(tmp_path, vectors=spoiled(3, 0.0))
    rows = load_rows(Vectors(kind="file", path=str(path), range=[4, 9]), path, HOOK, D_MODEL)
    with pytest.raises(SaeflowError, match="vector 3 is zero, and there is no other"):
        check_rows(rows, range(3, 4), D_MODEL, "here")


@pytest.mark.parametrize("kind", ["decoder", "mixtures"])
def test_dead_rows_of_a_decoder_are_told_and_hinder_no_other_row(
    kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS.clone()
    rows[[3, 7]] = 0
    sae = replace(tiny_sae(), W_dec=rows, metadata={"hook_name": HOOK})
    save_sae(tmp_path / "dead", sae)
    settings = Vectors(kind=kind)
    loaded = load_rows(settings, tmp_path / "dead" / "sae_weights.safetensors", HOOK, D_MODEL)
    assert "vector 3 (and 1 more) is zero and steers nothing" in capsys.readouterr().err
    vectors = candidate_vectors(settings, loaded, range(D_SAE), seed=1)
    assert vectors.isfinite().all()
    alone = candidate_vectors(settings, ROWS, range(D_SAE), seed=1)
    if kind == "decoder":
        assert (vectors.norm(dim=1) == 0).nonzero()[:, 0].tolist() == [3, 7]
        alone[[3, 7]] = 0
        assert torch.equal(vectors, alone)
    else:
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(D_SAE))


def test_a_tensor_that_the_file_lacks_is_named_beside_those_it_has(tmp_path: Path) -> None:
    path = file_of(tmp_path, directions=ROWS, more=M)
    with pytest.raises(
        SaeflowError, match="has no tensor 'vectors', but directions, more; name one of them"
    ):
        load_rows(Vectors(kind="file", path=str(path)), path, HOOK, D_MODEL)


def test_a_source_of_another_hook_is_refused(tmp_path: Path) -> None:
    weights = wide_sae(tmp_path, hook="blocks.9.hook_resid_post")
    with pytest.raises(
        SaeflowError, match=r"is from hook 'blocks.9.hook_resid_post' and vectors are added at"
    ):
        load_rows(Vectors(), weights, HOOK, D_MODEL)


# --- counted without loading anything -------------------------------------------------------------


def study(vectors: dict[str, Any], **saes: Any) -> Any:
    changes = {"hook": HOOK, "effects.vectors": {**vectors, "block_size": 10}}
    changes["model.train.d_model"] = D_MODEL
    changes |= {f"saes.{name}": sae for name, sae in saes.items()}
    return check_any_study(study_config("minimal", changes))


def test_vectors_are_counted_from_headers_alone(tmp_path: Path) -> None:
    path = str(file_of(tmp_path, vectors=ROWS, M=M, b=B))
    wide = {"path": str(wide_sae(tmp_path).parent)}
    for vectors, count in (
        ({}, 64),
        ({"kind": "random", "range": [0, 500]}, 500),
        ({"kind": "file", "path": path}, 48),
        ({"kind": "sae_ts", "path": path, "range": [10, 30]}, 20),
        ({"sae": "wide"}, 96),
        ({"kind": "mixtures", "sae": "wide"}, 96),
    ):
        asked = study(vectors, wide=wide)
        counts = vector_count(asked, asked.effects), block_count(asked, asked.effects)
        assert counts == (count, -(-count // 10))


def test_a_count_that_the_source_does_not_have_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    beyond = study({"range": [0, 65]})
    absent = study({"kind": "file", "path": str(tmp_path / "absent")})
    with pytest.raises(
        SaeflowError, match=r"\[0, 65\] goes beyond the source, which has 64 vectors"
    ):
        vector_count(beyond, beyond.effects)
    with pytest.raises(SaeflowError, match=r"effects.vectors.path: .*absent does not exist"):
        vector_count(absent, absent.effects)


def test_an_sae_that_knows_no_hook_is_taken_at_its_word(tmp_path: Path) -> None:
    weights = wide_sae(tmp_path)
    config = read_json(weights.parent / "cfg.json")
    del config["metadata"]["hook_name"], config["metadata"]["saeflow_seal"]
    write_json(weights.parent / "cfg.json", config)
    assert len(load_rows(Vectors(), weights, HOOK, D_MODEL)) == 96


def test_a_transcoder_s_rows_belong_to_the_hook_it_writes_to(tmp_path: Path) -> None:
    W_dec = unit_rows(8)
    metadata = {"hook_name": "blocks.0.hook_resid_post", "hook_name_out": HOOK}
    sae = SAE("standard", W_dec.T.contiguous(), W_dec, torch.zeros(8), torch.zeros(D_MODEL))
    save_sae(tmp_path / "wide", replace(sae, metadata=metadata))
    assert (
        len(load_rows(Vectors(), tmp_path / "wide" / "sae_weights.safetensors", HOOK, D_MODEL)) == 8
    )
