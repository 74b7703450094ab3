"""Names of targets that one table could not tell apart are refused before any job."""

from __future__ import annotations

import pytest
from studies import changed, study_config

from saeflow.errors import SaeflowError
from saeflow.kinds import check_any_study

STUDY = study_config("on-a-gpu")


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (
            {"together": {"12": {"sae": "topk", "latents": [1, 2]}}},
            "dreaming.targets.together.12: is the number of a latent; give it a name",
        ),
        (
            {"directions": {"end": "way.safetensors"}},
            "dreaming.targets.logits.end: is the name of a direction, too; choose another",
        ),
    ],
)
def test_two_targets_of_one_name_are_refused(targets: dict[str, object], sentence: str) -> None:
    changes = {f"dreaming.targets.{key}": value for key, value in targets.items()}
    with pytest.raises(SaeflowError) as raised:
        check_any_study(changed(STUDY, changes))
    assert sentence in str(raised.value)
