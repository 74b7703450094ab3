"""Published effects and approximators come in and go out as they are, and what cannot be used is
told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from steered import D_MODEL, D_SAE, tiny_sae, unit_rows

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.approximator import fit
from saeflow.analyses.effects.io import load_approximation, open_effects, save_approximation
from saeflow.analyses.effects.published import (
    export_effects,
    import_effects,
    read_adapter,
    read_rotation,
    write_adapter,
)
from saeflow.analyses.effects.settings import Approximator
from saeflow.errors import SaeflowError

N = 60
VECTORS = unit_rows(N)
SCALE = torch.linspace(20, 180, N)
M = torch.randn(D_MODEL, D_SAE, generator=torch.Generator().manual_seed(1))
EFFECTS = VECTORS @ M + 0.3
METADATA = {"hook": "blocks.12.hook_resid_post"}


def released(path: Path, **changes: Any) -> Path:
    content = {"features": VECTORS * SCALE[:, None], "effects": EFFECTS, **changes}
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return path


def spoiled(rows: torch.Tensor, row: int, value: float) -> torch.Tensor:
    rows = rows.clone()
    rows[row] = value
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_published_effects_are_a_table_like_any_other(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saeflow.analyses.effects.published.CHUNK", 7)
    source = released(tmp_path / "effects_2b.pt", effects=EFFECTS.to(dtype))
    assert import_effects(source, tmp_path / "effects.h5", METADATA) == N
    with open_effects(tmp_path / "effects.h5") as table, h5py.File(tmp_path / "effects.h5") as file:
        torch.testing.assert_close(table.vectors, VECTORS)
        np.testing.assert_allclose(table.scale, SCALE.numpy(), rtol=1e-6)
        assert torch.equal(torch.from_numpy(table.effects[:]), EFFECTS.to(dtype))
        assert {file["status"].attrs["names"][status] for status in table.status} == {"imported"}
        assert np.isnan(table.loss).all()
        assert table.usable.all()
        assert table.metadata == {"source": "effects_2b.pt", **METADATA}
        fitted = fit(
            table.vectors, table.effects, Approximator(), tiny_sae().W_dec, 0, table.usable
        )
    assert fitted.metrics["r2"] > (0.99 if dtype == torch.float32 else 0.9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_effects_go_out_as_they_came_in(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saeflow.analyses.effects.published.CHUNK", 7)
    source = released(tmp_path / "in.pt", effects=EFFECTS.to(dtype))
    import_effects(source, tmp_path / "effects.h5", METADATA)
    with open_effects(tmp_path / "effects.h5") as table:
        assert export_effects(table, tmp_path / "out.pt") == N
    before, after = (torch.load(tmp_path / name, weights_only=True) for name in ("in.pt", "out.pt"))
    assert torch.equal(after["effects"], before["effects"])
    torch.testing.assert_close(after["features"], before["features"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["effects.h5", "in.pt", "out.pt"]


def test_a_published_feature_of_zeros_has_no_effects_and_hinders_no_other(tmp_path: Path) -> None:
    source = released(tmp_path / "in.pt", features=spoiled(VECTORS, 41, 0.0))
    import_effects(source, tmp_path / "effects.h5", METADATA)
    with open_effects(tmp_path / "effects.h5") as table, h5py.File(tmp_path / "effects.h5") as file:
        assert (~table.usable).nonzero()[0].tolist() == [41]
        assert file["status"].attrs["names"][table.status[41]] == "zero_vector"
        assert table.vectors.isfinite().all()


def test_vectors_that_were_not_added_stay_here(tmp_path: Path) -> None:
    import_effects(released(tmp_path / "in.pt"), tmp_path / "effects.h5", METADATA)
    with h5py.File(tmp_path / "effects.h5", "r+") as file:
        del file.attrs["saeflow_seal"]  # it is edited on purpose
        file["scale"][10:20] = 0
    with open_effects(tmp_path / "effects.h5") as table:
        assert export_effects(table, tmp_path / "out.pt") == N - 10
        none = table._replace(scale=table.scale * 0)
        with pytest.raises(SaeflowError, match="no vector has a scale above 0"):
            export_effects(none, tmp_path / "nothing.pt")
    kept = torch.cat([EFFECTS[:10], EFFECTS[20:]])
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True)["effects"], kept)
    assert not (tmp_path / "nothing.pt").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features": None}, "must hold features and effects, and holds effects"),
        (
            {"effects": EFFECTS[:-1]},
            r"features \[60, 32\] and effects \[59, 48\] must be \[n, d_model\]",
        ),
        ({"effects": EFFECTS[0]}, "must be"),
        (
            {"features": spoiled(VECTORS, 41, float("inf"))},
            r"row 41 .*\(its feature holds NaN or infinity\)",
        ),
        (
            {"effects": spoiled(EFFECTS, 7, float("nan"))},
            r"row 7 .*\(its effects hold NaN or infinity\)",
        ),
    ],
)
def test_published_effects_that_cannot_be_used_are_one_sentence_and_no_file(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    source = released(tmp_path / "in.pt", **changes)
    with pytest.raises(SaeflowError, match=complaint) as caught:
        import_effects(source, tmp_path / "effects.h5", METADATA)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["in.pt"]


class Payload:
    """Something that unpickling would have to trust."""


@pytest.mark.parametrize("content", [None, b"", b"PK no zip", "short", Payload()])
def test_a_file_that_is_no_torch_file_of_tensors_is_one_sentence(
    tmp_path: Path, content: Any
) -> None:
    path = tmp_path / "in.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "short":
        released(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif content:
        torch.save({"features": content}, path)
    with pytest.raises(
        SaeflowError, match=r"in\.pt: (no such file|is no whole torch file|holds more than tensors)"
    ) as caught:
        import_effects(path, tmp_path / "effects.h5", METADATA)
    assert "\n" not in str(caught.value)


def test_an_approximator_goes_out_and_comes_back(tmp_path: Path) -> None:
    W_dec = tiny_sae().W_dec
    approximation = Approximation.of(M, torch.rand(D_SAE), W_dec)
    write_adapter(approximation, tmp_path / "adapter.pt")
    assert set(torch.load(tmp_path / "adapter.pt", weights_only=True)) == {"W", "b"}
    save_approximation(tmp_path, read_adapter(tmp_path / "adapter.pt", W_dec), METADATA)
    assert all(
        torch.equal(a, b) for a, b in zip(load_approximation(tmp_path), approximation, strict=True)
    )


@pytest.mark.parametrize(
    ("W", "b", "complaint"),
    [
        (
            M.T,
            torch.zeros(D_SAE),
            r"must be \[32, 48\] and \[48\] for this SAE; it is transposed; take the SAE",
        ),
        (M[:, 1:], torch.zeros(D_SAE - 1), r"W \[32, 47\] and b \[47\] must be"),
        (M, torch.zeros(D_MODEL), r"b \[32\] must be"),
        (spoiled(M, 3, float("nan")), torch.zeros(D_SAE), "holds NaN or infinity"),
        (M, None, "must hold W and b, and holds W"),
    ],
)
def test_an_approximator_for_something_else_is_refused(
    tmp_path: Path, W: torch.Tensor, b: torch.Tensor | None, complaint: str
) -> None:
    torch.save({"W": W} | ({} if b is None else {"b": b}), tmp_path / "adapter.pt")
    with pytest.raises(SaeflowError, match=complaint):
        read_adapter(tmp_path / "adapter.pt", tiny_sae().W_dec)


def test_a_published_rotation_turns_decoder_rows_to_columns_and_not_back(tmp_path: Path) -> None:
    W_dec = torch.nn.functional.normalize(tiny_sae().W_dec, dim=1)
    Q = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(1)))[
        0
    ]
    planted = (W_dec @ Q).T
    U, _, Vh = torch.linalg.svd(
        planted @ W_dec
    )  # as the release fits R_dec: from the sum of column times decoder row
    torch.save(U @ Vh, tmp_path / "R_dec.pt")
    rotation = read_rotation(tmp_path / "R_dec.pt", D_MODEL)
    torch.testing.assert_close(W_dec @ rotation, planted.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        rotation, Approximation.of(planted, torch.zeros(D_SAE), W_dec).rotation
    )
    released = torch.nn.functional.cosine_similarity(W_dec @ (U @ Vh), planted.T, dim=1)
    assert released.abs().mean() < 0.5  # the inverse, with which the release steers


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (torch.eye(D_MODEL - 1), r"must hold one matrix \[32, 32\], and holds \[31, 31\]"),
        ({"W": torch.eye(D_MODEL)}, "and holds dict"),
        (2 * torch.eye(D_MODEL), "is no rotation"),
        (spoiled(torch.eye(D_MODEL), 3, float("nan")), "is no rotation"),
    ],
)
def test_what_is_no_published_rotation_is_refused(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    torch.save(content, tmp_path / "R_dec.pt")
    with pytest.raises(SaeflowError, match=complaint):
        read_rotation(tmp_path / "R_dec.pt", D_MODEL)
