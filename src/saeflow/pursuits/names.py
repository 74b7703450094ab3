"""Which pursuits there are, for settings; `saeflow.pursuits.methods` has the functions."""

from __future__ import annotations

from typing import Literal

PursuitName = Literal["gradient", "gradient_positive", "orthogonal", "matching", "lasso"]
