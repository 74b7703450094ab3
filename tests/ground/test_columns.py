"""Columns of Arrow tables from NumPy arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from saeflow.columns import column


@pytest.mark.parametrize("kind", ["int32", "int64", "float32", "float64", "uint16"])
def test_a_column_holds_what_arrow_itself_makes_of_the_array(kind):
    values = np.arange(20).astype(kind)
    for column_values in (values, values[::3], values[:0]):
        assert column(column_values).equals(pa.array(column_values))


def test_a_column_does_not_import_pandas():
    program = (
        "import sys, numpy; from saeflow.columns import column; column(numpy.ones(3)); "
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
