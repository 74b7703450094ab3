"""Weekdays and months lie in circles in a real chat model, beside nulls of their own size."""

from __future__ import annotations

import numpy as np
import pytest
from smollm2 import cached_files

from saeflow.analyses.geometry.circle import best_plane, circle_null, neighbours_kept
from saeflow.analyses.geometry.reading import read_words
from saeflow.analyses.geometry.settings import WordGroup
from saeflow.models.language_model import LanguageModel, load_model

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]
HOOK = "blocks.12.hook_resid_post"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(cached_files()[1])


@pytest.mark.parametrize(("kind", "r2", "null"), [("weekdays", 0.93, 0.76), ("months", 0.90, 0.47)])
def test_words_lie_in_a_circle_and_other_orders_of_them_do_not(
    lm: LanguageModel, kind: str, r2: float, null: float
) -> None:
    group = WordGroup.model_validate({"kind": kind})
    points = read_words(lm, group, [HOOK])[HOOK].double().numpy().mean(axis=0)
    plane = best_plane(points, 4)
    other = circle_null(points, 4, 9_999, 0.95, np.random.default_rng(0))
    assert plane.r2 == pytest.approx(r2, abs=0.04)
    assert other.high == pytest.approx(null, abs=0.05)
    assert other.p < 0.01
    assert neighbours_kept(plane.places(points)) == len(group.members)
