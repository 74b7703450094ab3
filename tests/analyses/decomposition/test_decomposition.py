"""Directions in the decoders of SAEs: what was planted is found, what means nothing is not, encoders
fail where they must, and an SAE that saw a concept keeps its direction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from jaxtyping import Float
from planted_dictionary import cached
from safetensors.torch import save_file
from steered import HOOK, tiny_lm, tiny_sae, unit_rows
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.activations.reader import ShuffledReader
from saeflow.analyses.decomposition.curves import (
    CURVES,
    ENCODER,
    LATENTS,
    STABILITY,
    Subject,
    curve_table,
    encoder_table,
    latent_difference,
    latent_table,
    shuffled_differences,
    stability_table,
)
from saeflow.analyses.decomposition.decomposing import (
    Files,
    Material,
    decompose_in,
    directions_of,
    write_tables,
)
from saeflow.analyses.decomposition.directions import (
    Direction,
    load_rows,
    read_contrasts,
    save_rows,
)
from saeflow.analyses.decomposition.fidelity import (
    FIDELITY,
    fidelity_row,
    occurrence_of,
    rebuilt_difference,
)
from saeflow.analyses.decomposition.pooling import differences
from saeflow.analyses.decomposition.settings import DecomposedDirections, PursuitCurves
from saeflow.analyses.directions.io import read_vector
from saeflow.analyses.directions.placing import ContrastRows
from saeflow.analyses.steering.io import SteeringVector, save_vector
from saeflow.config.sections import SAETraining
from saeflow.corpora.tokens import TokenBlocks
from saeflow.errors import SaeflowError
from saeflow.models.running import capture
from saeflow.pursuits.dictionary import Dictionary
from saeflow.saes.feeds import sae_feed
from saeflow.saes.sae import SAE
from saeflow.saes.training import train_saes

D_MODEL, FEATURES, CONCEPT = 24, 40, 0
SETTINGS = PursuitCurves(latents=8, listed=4, random=30, shuffled=10, bootstrap=30)


def orthonormal(n: int, seed: int = 0) -> Float[Tensor, "n n"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator))[0]


def subject_of(sae: SAE, mean_norm: float = 10.0) -> Subject:
    return Subject(sae, Dictionary(sae.W_dec), mean_norm, seed=0)


def contrast_rows(directions: Tensor, texts: int, seed: int, strength: float = 1.0) -> ContrastRows:
    """Texts of which half have the concept, in halves that make the direction and that are held
    out."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(texts, len(directions), generator=generator) < 0.05
    weights = on * (0.5 + torch.rand(texts, len(directions), generator=generator))
    positive = torch.arange(texts) % 2 == 0
    weights[:, CONCEPT] = torch.where(positive, strength, 0.0)
    noise = 0.02 * torch.randn(texts, directions.shape[1], generator=generator)
    return ContrastRows(7 * (weights @ directions + noise), positive, torch.arange(texts) % 4 >= 2)


def direction_of(rows: ContrastRows, name: str = "concept") -> Direction:
    return Direction(name, rows.part(held_out=False).difference, rows)


def test_a_dictionary_that_holds_the_direction_needs_one_latent() -> None:
    sae = tiny_sae()
    direction = Direction("planted", -2.5 * sae.W_dec[5].double())
    table = curve_table(subject_of(sae), [direction], SETTINGS)
    assert dict(table.schema) == CURVES
    first = table.filter((pl.col("kind") == "direction") & (pl.col("k") == 1))
    signed = first.filter(pl.col("method").is_in(["orthogonal", "gradient", "matching", "lasso"]))
    assert len(signed) == 4
    assert signed["error"].max() < 1e-9
    assert first.filter(method="gradient_positive")["error"].item() > 0.5
    latents = latent_table(subject_of(sae), [direction], SETTINGS, torch.full((48,), 0.25))
    assert dict(latents.schema) == LATENTS
    row = latents.filter(method="orthogonal").row(0, named=True)
    assert (row["latent"], row["place"], row["density"]) == (5, 1, 0.25)
    assert row["weight"] == pytest.approx(-2.5, abs=1e-5)
    assert row["cosine"] == pytest.approx(-1, abs=1e-5)
    assert row["chosen"] is None


def test_random_and_shuffled_directions_need_more_latents_than_a_planted_one() -> None:
    directions = normalize(
        torch.randn(FEATURES, D_MODEL, generator=torch.Generator().manual_seed(1))
    )
    sae = SAE(
        "standard",
        directions.T.contiguous(),
        directions,
        torch.zeros(FEATURES),
        torch.zeros(D_MODEL),
    )
    rows = contrast_rows(directions, 400, seed=2)
    table = curve_table(subject_of(sae), [direction_of(rows)], SETTINGS)
    at_one = table.filter(k=1, method="orthogonal")
    own = at_one.filter(kind="direction")["error"].item()
    for kind in ("random", "shuffled"):
        null = at_one.filter(kind=kind).row(0, named=True)
        assert null["error_low"] <= null["error"] <= null["error_high"]
        assert own < null["error_low"], kind
    assert at_one.filter(kind="random")["direction"].item() == ""
    falling = table.filter(pl.col("method") != "difference", pl.col("method") != "encoder")
    for _, curve in falling.group_by("direction", "kind", "method"):
        assert (np.diff(curve.sort("k")["error"]) <= 1e-9).all()


def test_a_dictionary_of_activations_is_one_more_way() -> None:
    sae = tiny_sae()
    direction = Direction("planted", sae.W_dec[5].double())
    activations = Dictionary(torch.cat([unit_rows(20, seed=9), 3 * sae.W_dec[[5]]]))
    table = curve_table(subject_of(sae), [direction], SETTINGS, activations)
    own = table.filter(method="itda", kind="direction")
    assert own["error"].max() < 1e-9
    assert table.filter(method="itda", kind="random", k=1)["error"].item() > 0.5


def test_shuffled_labels_leave_the_texts_as_they_are() -> None:
    rows = contrast_rows(orthonormal(D_MODEL), 60, seed=3)
    draws = shuffled_differences(rows, 200, 0, "concept")
    cosines = torch.cosine_similarity(draws, rows.difference.unsqueeze(0))
    assert abs(cosines.mean()) < 0.1
    assert torch.equal(draws, shuffled_differences(rows, 200, 0, "concept"))
    assert draws.norm(dim=1).max() < 0.7 * rows.difference.norm()


def test_the_encoder_says_nothing_of_a_direction_that_a_pursuit_finds() -> None:
    """By construction: latents need more than their bias takes, and the direction is short."""
    directions = orthonormal(D_MODEL)
    bias = torch.full((D_MODEL,), -0.5)
    sae = SAE("standard", directions.T.contiguous(), directions, bias, torch.zeros(D_MODEL))
    vector = 0.1 * (directions[3] + directions[8] - directions[11]).double()
    direction, subject = Direction("short", vector), subject_of(sae, mean_norm=10.0)
    table = encoder_table(subject, [direction], SETTINGS)
    assert dict(table.schema) == ENCODER
    short, long = table.rows(named=True)
    assert (short["active"], short["cosine"]) == (0, 0.0)
    assert short["error"] == pytest.approx(1)
    assert short["from_direction"] < 0.1 * short["from_bias"]
    assert short["negative"] == pytest.approx(1 / 3)
    # As long as an activation it sees what is added, and never what is subtracted.
    assert (long["active"], long["norm"]) == (2, 10.0)
    assert long["cosine"] == pytest.approx(math.sqrt(2 / 3), abs=0.01)
    curves = curve_table(subject, [direction], SETTINGS).filter(kind="direction")
    assert curves.filter(method="orthogonal", k=3)["error"].item() < 1e-9
    assert curves.filter(method="encoder")["error"].min() == 1.0


def test_latents_that_the_bias_alone_switches_on_are_counted() -> None:
    sae = tiny_sae()
    sae.b_enc[:7] = 5.0
    direction = Direction("any", 1e-3 * unit_rows(1)[0].double())
    row = encoder_table(subject_of(sae), [direction], SETTINGS).row(0, named=True)
    assert row["of_bias"] == 7
    assert row["active"] >= 7


def test_the_rebuilt_difference_is_the_difference_of_latents_times_the_decoder() -> None:
    sae = tiny_sae()
    generator = torch.Generator().manual_seed(4)
    rows = ContrastRows(
        3 * torch.randn(50, 32, generator=generator) + 1,
        torch.arange(50) < 20,
        torch.arange(50) < 0,
    )
    expected = latent_difference(sae, rows) @ sae.W_dec.double()
    torch.testing.assert_close(rebuilt_difference(sae, rows), expected, atol=1e-5, rtol=1e-5)


def test_latents_are_stable_where_the_texts_agree_and_not_where_they_do_not() -> None:
    directions = normalize(
        torch.randn(FEATURES, D_MODEL, generator=torch.Generator().manual_seed(1))
    )
    sae = SAE(
        "standard",
        directions.T.contiguous(),
        directions,
        torch.zeros(FEATURES),
        torch.zeros(D_MODEL),
    )
    clear = direction_of(contrast_rows(directions, 400, seed=5), "clear")
    void = direction_of(contrast_rows(directions, 40, seed=6, strength=0.0), "void")
    table = stability_table(subject_of(sae), [clear, void], SETTINGS)
    assert dict(table.schema) == STABILITY
    first = {row["direction"]: row for row in table.filter(k=1).rows(named=True)}
    assert first["clear"]["overlap"] == 1.0
    assert first["void"]["overlap"] < 0.7
    assert first["clear"]["cosine"] > 0.95 > first["void"]["cosine"]
    latents = latent_table(subject_of(sae), [clear], SETTINGS, torch.zeros(FEATURES))
    best = latents.filter(place=1, method="orthogonal").row(0, named=True)
    assert (best["latent"], best["chosen"]) == (CONCEPT, 1.0)
    assert best["difference"] == pytest.approx(7, rel=0.2)


def corpus_of(directions: Tensor, share: float, seed: int, rows: int = 20_000) -> Tensor:
    """Activations of which a share has the concept."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, len(directions), generator=generator) < 0.06
    on[:, CONCEPT] = torch.rand(rows, generator=generator) < share
    weights = on * (0.5 + torch.rand(rows, len(directions), generator=generator))
    noise = 0.02 * torch.randn(rows, directions.shape[1], generator=generator)
    return 7 * (weights @ directions + noise)


def trained_on(folder: Path, activations: Tensor, seed: int) -> SAE:
    store = cached(folder, activations)
    settings = SAETraining(
        d_sae=48, k=4, batch_size=256, tokens=80_000, learning_rate=1e-2, seed=seed
    )
    feed = sae_feed(ShuffledReader(store, 256, 0), store, {"hook_name": store.hook})
    return train_saes(feed, [settings], 0)[0].sae


def test_an_sae_that_saw_the_concept_keeps_its_direction_better(tmp_path: Path) -> None:
    """Three seeds of planted corpora: the intervals of cosine and error lie apart in each, and the
    margin between the means is outside of its interval over seeds."""
    tables: dict[str, pl.DataFrame] = {}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        directions = normalize(torch.randn(FEATURES, D_MODEL, generator=generator), dim=1)
        rows = contrast_rows(directions, 800, seed=100 + seed)
        direction = direction_of(rows)
        fidelity: dict[str, dict[str, Any]] = {}
        for name, share in (("with", 0.06), ("without", 0.0)):
            activations = corpus_of(directions, share, 200 + seed)
            sae = trained_on(tmp_path / f"{name}-{seed}", activations, seed)
            density = (sae.encode(activations[:4096]) > 0).double().mean(0)
            subject = subject_of(sae)
            fidelity[name] = fidelity_row(subject, direction, SETTINGS, density, None)
        seen, unseen = fidelity["with"], fidelity["without"]
        assert seen["cosine_low"] > unseen["cosine_high"], (seed, seen, unseen)
        assert seen["error_high"] < unseen["error_low"], (seed, seen, unseen)
        assert seen["best_cosine"] > 0.9 > abs(unseen["best_cosine"])
        assert 0.03 < seen["best_density"] < 0.3
        assert seen["cosine"] <= seen["repeated_cosine"] + 0.02
        null = math.sqrt(2 * math.log(48) / D_MODEL)
        assert seen["null_cosine"] == pytest.approx(null)
        assert (seen["texts"], seen["held_out"]) == (400, 400)
        tables |= {
            f"{name}-{seed}": pl.DataFrame([row], schema=FIDELITY) for name, row in fidelity.items()
        }
    pools = {name: [f"{name}-{seed}" for seed in range(3)] for name in ("with", "without")}
    apart = differences(tables, pools, 0.95)
    cosine, error = (apart.filter(measure=each).row(0, named=True) for each in ("cosine", "error"))
    assert (cosine["first"], cosine["second"]) == ("with", "without")
    assert cosine["low"] > 0
    assert error["high"] < 0


def test_words_are_counted_whole_and_in_any_case() -> None:
    texts = ["The sea is wide .", "A seal sleeps .", "sea , SEA and lake"]
    blocks = TokenBlocks(np.arange(3, dtype=np.int32).repeat(4).reshape(3, 4), {}, {})
    occurrence = occurrence_of(["sea", "lake"], blocks, lambda tokens: texts[tokens[0]])
    assert occurrence.share == pytest.approx(2 / 3)
    assert occurrence.per_thousand == pytest.approx(1000 * 4 / 12)


# --- reading --------------------------------------------------------------------------------------


def asked(positive: str = "yes", **changes: Any) -> DecomposedDirections:
    examples = [{"text": f"I think the cat sat number {n}", "label": "yes"} for n in range(6)]
    examples += [{"text": f"a dog ran {n} under", "label": "no"} for n in range(6)]
    contrast = {"texts": {"examples": examples}, "positive": positive, **changes}
    return DecomposedDirections.model_validate({"contrasts": {"cats": contrast}})


def test_a_contrast_is_the_difference_of_means_at_its_position(tmp_path: Path) -> None:
    lm = tiny_lm()
    for position in ("last", "all"):
        directions = asked(position=position)
        rows, table = read_contrasts(lm, HOOK, directions, {}, seed=0)
        own = rows["cats"]
        assert own.positive.tolist() == [True] * 6 + [False] * 6
        assert table["held_out"].sum() == 6
        examples = directions.contrasts["cats"].texts.examples or []
        for row, example in enumerate(examples):
            tokens = torch.tensor([lm.tokenize(str(example.text))])
            resid = capture(lm, tokens, [HOOK])[HOOK][0]
            expected = resid[-1] if position == "last" else resid[1:].mean(0)
            torch.testing.assert_close(own.activations[row], expected)
            assert table["tokens"][row] == tokens.shape[1]
    train = own.part(held_out=False)
    means = [train.activations[train.positive == side].mean(0).double() for side in (True, False)]
    torch.testing.assert_close(train.difference, means[0] - means[1], atol=1e-6, rtol=1e-5)
    save_rows(tmp_path / "rows.safetensors", rows)
    loaded = load_rows(tmp_path / "rows.safetensors", ["cats"])["cats"]
    assert all(torch.equal(a, b) for a, b in zip(loaded, own, strict=True))
    with pytest.raises(SaeflowError, match="lacks"):
        load_rows(tmp_path / "rows.safetensors", ["dogs"])


def test_all_tables_of_an_sae_come_from_its_files(tmp_path: Path) -> None:
    """Contrasts, steering vectors and files, in the decoder and in a dictionary of activations."""
    lm, sae = tiny_lm(), tiny_sae()
    directions = asked(concept=["cat", "dog"])
    rows, _ = read_contrasts(lm, HOOK, directions, {}, seed=0)
    save_rows(tmp_path / "rows.safetensors", rows)
    activations = 2 * torch.randn(3000, 32, generator=torch.Generator().manual_seed(0)) + 1
    tokens = np.array([lm.tokenize("I think the cat sat ."), lm.tokenize("the the the the the .")])
    blocks = TokenBlocks(tokens.astype(np.int32), {}, {})
    material = Material(sae, HOOK, cached(tmp_path / "cache", activations), blocks, lm.tokenizer)
    steering, file = tmp_path / "vector.safetensors", tmp_path / "other.safetensors"
    vector = SteeringVector.towards(
        {7: 1.0}, sae.W_dec[7], hook=HOOK, goal="cats", method="sae", norm=1.0
    )
    save_vector(steering, vector)
    save_file({"v": -sae.W_dec[9]}, file)
    curves = PursuitCurves.model_validate(
        SETTINGS.model_dump() | {"itda": {"tokens": 500, "k": 2, "error": 0.5}}
    )
    files = Files(steering=[steering], vectors={"other": file})
    activations_of = tmp_path / "rows.safetensors"
    named = directions_of(directions, activations_of, files, HOOK, 32)
    tables = decompose_in(material, named, curves, 0)
    write_tables(tmp_path / "out", tables)
    first = tables["latents"].filter(method="orthogonal", place=1)
    latents = dict(first.select("direction", "latent").iter_rows())
    assert (latents["cats/sae"], latents["other"]) == (7, 9)
    assert set(tables["encoder"]["direction"]) == {"cats", "cats/sae", "other"} == set(latents)
    ways = set(tables["curves"].filter(kind="direction", direction="cats")["method"])
    assert ways == {*curves.pursuits, "itda", "encoder", "difference", "difference_refit"}
    (kept,) = tables["fidelity"].to_dicts()
    assert (kept["direction"], kept["concept_share"]) == ("cats", 0.5)
    for name, table in tables.items():
        assert pl.read_parquet(tmp_path / f"out/{name}.parquet").equals(table)
    with pytest.raises(SaeflowError, match="is added at"):
        directions_of(directions, activations_of, files, "blocks.0.hook_resid_post", 32)


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    lm = tiny_lm()
    with pytest.raises(SaeflowError, match="no tokens of a chat template"):
        read_contrasts(lm, HOOK, asked(position="template[-1]"), {}, seed=0)
    few = asked()
    few.contrasts["cats"].texts.examples[:] = few.contrasts["cats"].texts.examples[4:9]  # type: ignore[index]
    with pytest.raises(SaeflowError, match="two of each are the least"):
        read_contrasts(lm, HOOK, few, {}, seed=0)
    file = tmp_path / "two.safetensors"
    save_file({"a": torch.ones(32), "b": torch.ones(32)}, file)
    with pytest.raises(SaeflowError, match=r"^key: .* holds a, b; say which in tensor"):
        read_vector(file, 32, "key")
    assert torch.equal(read_vector(file, 32, "key", "b"), torch.ones(32).double())
    with pytest.raises(SaeflowError, match=r"^key: 'a' in .* is no vector of 16 finite numbers"):
        read_vector(file, 16, "key", "a")
    save_file({"a": torch.arange(32.0).unsqueeze(0), "step": torch.tensor(3)}, file)
    assert torch.equal(read_vector(file, 32, "key"), torch.arange(32.0).double())
