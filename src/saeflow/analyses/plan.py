"""What a study of a language model would run, and what it needs."""

from __future__ import annotations

from pathlib import Path

from saeflow.analyses import Study
from saeflow.config.counts import latent_count
from saeflow.config.locations import fetches, location
from saeflow.planning.shape import model_shape
from saeflow.planning.stages import heading, needs, plan_study, remarks
from saeflow.planning.work import Plan

NOT_HERE = (
    "the model is not on this machine yet: its work, and sizes that follow from its width, are not "
    "known"
)


def plan(study: Study, root: Path) -> Plan:
    """The work of a study.

    Args:
        study: the study.
        root: the folder that ``results/`` lies in.
    """
    outside, shape = needs(study, root), model_shape(study)

    def there(path: str) -> bool:
        return (root / path).exists()

    def rate(device: str) -> float:
        from saeflow.planning.calibration import products_per_second

        assert shape
        width = latent_count(study, study.target_sae)
        return products_per_second(shape, width, study.model.dtype, device)

    return Plan(
        heading(study, study.model.name, study.hook),
        "tokens",
        [
            stage.left(lambda path: there(location(study, path, there)))
            for stage in plan_study(study, shape, fetches(study, root))
        ],
        outside,
        remarks(study) if shape else [NOT_HERE, *remarks(study)],
        rate if shape else None,
    )
