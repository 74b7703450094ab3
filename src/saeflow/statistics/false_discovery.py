"""P-values adjusted for their number."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy import stats

Values = Float64[np.ndarray, "..."]


def q_values(p: Values, method: str) -> Values:
    """The false discovery rate at which each p-value would just count as a discovery.

    Args:
        p: of any shape; all of them are one family, but for NaN, which is no test and stays NaN.
        method: ``bh`` (Benjamini and Hochberg 1995) or ``by`` (Benjamini and Yekutieli 2001: under
            any dependence).
    """
    tested = ~np.isnan(p)
    q = np.full(p.shape, np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method=method)
    return q
