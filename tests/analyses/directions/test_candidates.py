"""Differences of means on planted activations, against closed forms and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from saeflow.analyses.directions.candidates import GEOMETRY, Held, Material, geometry, unit
from saeflow.analyses.directions.transfer import angles_between

D = 24
POSITIONS, LAYERS = ["template[-2]", "template[-1]"], [0, 3]


def planted(prompts: int, size: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Normal noise; at the last position and layer, `on` prompts hold the first axis so much."""
    generator = np.random.default_rng(seed)
    values = torch.from_numpy(generator.normal(size=(prompts, 2, 2, D))).float()
    on = np.arange(prompts) % 2 == 0
    values[on, 1, 1, 0] += size
    return values, on


def test_the_difference_is_that_of_the_means() -> None:
    values, on = planted(30, 3.0)
    exact = values[on].double().mean(0) - values[~on].double().mean(0)
    torch.testing.assert_close(Material(values, on).difference, exact.float())
    alone = Material(values, np.ones(30, dtype=bool))
    torch.testing.assert_close(alone.difference, values.mean(0))


def test_bootstraps_keep_the_number_of_prompts_of_each_class() -> None:
    values, on = planted(31, 3.0)
    made = Material(values, on)
    counts = made.resampled(np.random.default_rng(1))
    assert counts[on].sum() == on.sum()
    assert counts[~on].sum() == (~on).sum()
    drawn = np.repeat(np.arange(31), counts.astype(int))
    again = Material(values[drawn], on[drawn]).difference
    torch.testing.assert_close(made.differences(counts[None])[0], again)


def test_what_is_planted_at_one_place_is_seen_there_alone() -> None:
    values, on = planted(80, 4.0)
    tested, tested_on = planted(60, 4.0, seed=1)
    held = Held(tested, tested_on, np.arange(60))
    rows = geometry(Material(values, on), held, POSITIONS, LAYERS, 40, 0.95, 0, "planted")
    assert dict(rows.schema) == GEOMETRY
    place = rows.to_dicts()[3]
    assert (place["position"], place["layer"]) == ("template[-1]", 3)
    along = tested[:, 1, 1] @ unit(Material(values, on).difference)[1, 1]
    above = mannwhitneyu(along[tested_on], along[~tested_on]).statistic / 30**2
    assert place["auc"] == pytest.approx(above)
    assert place["auc_low"] > 0.75
    assert place["auc"] > place["auc_shuffled"]
    assert place["split_half"] > 0.8 > place["split_half_shuffled"]
    assert place["stability_low"] > 0.8
    assert place["norm"] > 2 * place["norm_shuffled"]
    for other in rows.to_dicts()[:3]:
        assert other["auc_low"] < 0.5 < other["auc_high"] or other["auc"] < other["auc_shuffled"]
        assert abs(other["split_half"]) < 0.5
        assert other["norm"] < 1.6 * other["norm_shuffled"]


def test_shuffled_labels_keep_the_classes_sizes_and_signs_are_drawn_for_one_class() -> None:
    values, on = planted(21, 3.0)
    assert Material(values, on).shuffled(np.random.default_rng(0)).on.sum() == on.sum()
    alone = Material(values, np.ones(21, dtype=bool)).shuffled(np.random.default_rng(0))
    torch.testing.assert_close(alone.values.abs(), values.abs())
    assert not torch.equal(alone.values, values)


def test_angles_between_planes_are_those_they_were_turned_by() -> None:
    axes = torch.eye(D)
    turn = np.radians(30)
    tilted = np.cos(turn) * axes[1] + np.sin(turn) * axes[2]
    own = torch.stack([axes[0], 5 * axes[1]])[:, None]
    other = torch.stack([2 * axes[0], tilted])[:, None]
    rows = angles_between(own, {"base": other}, POSITIONS, [7], "refusal").to_dicts()
    assert [row["cosine"] for row in rows] == [
        pytest.approx(1.0),
        pytest.approx(np.cos(turn)),
        None,
    ]
    assert rows[2]["smallest_angle"] == pytest.approx(0.0, abs=1e-4)
    assert rows[2]["largest_angle"] == pytest.approx(30.0)
