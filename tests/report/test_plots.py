"""Drawings of matrices: their names, their numbers, nothing but vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from mmembed.report.plots import heat

AXES = ("English", "German")


def drawing(matrix: ArrayLike, rows: list[str], columns: list[str]) -> str:
    return heat(matrix, rows, columns, AXES, "similarity", "layers").svg


def test_a_heat_map_names_rows_columns_and_axes() -> None:
    matrix = np.array([[0.0, 0.25], [0.5, 1.0], [0.75, 0.125]])
    rows, columns = ["audio 0", "audio <1>", "fused"], ["a", "b"]
    svg = drawing(matrix, rows, columns)
    for text in ("audio 0", "audio &lt;1&gt;", "fused", "English", "German", "0.25", "0.50"):
        assert text in svg
    assert "<image" not in svg  # drawn, not a raster
    assert drawing(matrix, rows, columns) == svg


def test_a_large_one_leaves_numbers_out() -> None:
    names = [f"layer {i}" for i in range(13)]
    assert ">0.37<" not in drawing(np.full((13, 13), 0.37), names, names)
    assert ">0.37<" in drawing(np.full((3, 3), 0.37), names[:3], names[:3])


def test_names_must_fit() -> None:
    with pytest.raises(ValueError, match="1 columns"):
        drawing(np.zeros((2, 2)), ["a", "b"], ["a"])
