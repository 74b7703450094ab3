"""What is asked of geometry and cannot be done is told before any job."""

from __future__ import annotations

import pytest
from planted_circle import AGAIN, LINE
from studies import changed, study_config

from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study


def test_texts_that_are_read_off_and_latents_have_names_of_their_own() -> None:
    read_off = {name: {"examples": AGAIN} for name in ("ends", "other")}
    lines = {"time": {"texts": {"examples": LINE}, "block": 10, "read_off": read_off}}
    with pytest.raises(SaeflowError) as error:
        check_any_study(changed(study_config("on-a-gpu"), {"geometry.points.lines": lines}))
    assert "read_off.ends: is the name of a group of latents, too; rename" in str(error.value)
    assert "read_off.other" not in str(error.value)
