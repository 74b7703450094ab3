"""The sections of analyses that a part of the report is about."""

from __future__ import annotations

from saeflow.analyses import Study
from saeflow.analyses.effects.settings import Effects
from saeflow.analyses.steering.settings import Steering
from saeflow.errors import SaeflowError


def steered(study: Study) -> Steering:
    """How the study steers."""
    if study.steering is None:
        raise SaeflowError(f"study {study.study}: its config asks for no steering")
    return study.steering


def measured(study: Study) -> Effects:
    """How the study measures effects."""
    if study.effects is None:
        raise SaeflowError(f"study {study.study}: its config asks for no effects")
    return study.effects
