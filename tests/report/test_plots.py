"""Pictures that the report draws on request."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.report.plots import similarities


def test_a_similarity_picture_names_layers_and_languages() -> None:
    matrix = np.array([[0.0, 0.25], [0.5, 1.0], [0.75, 0.125]])
    rows, columns = ["audio 0", "audio <1>", "fused"], ["a", "b"]
    picture = similarities(matrix, rows, columns, ("English", "German"))
    for text in ("audio 0", "audio &lt;1&gt;", "fused", "English", "German", "0.25", "0.50"):
        assert text in picture
    assert "<image" not in picture  # drawn, not a raster
    assert similarities(matrix, rows, columns, ("English", "German")) == picture


def test_a_large_one_leaves_numbers_out() -> None:
    names = [f"layer {i}" for i in range(13)]
    assert ">0.37<" not in similarities(np.full((13, 13), 0.37), names, names, ("s", "t"))
    assert ">0.37<" in similarities(np.full((3, 3), 0.37), names[:3], names[:3], ("s", "t"))


def test_names_must_fit() -> None:
    with pytest.raises(ValueError, match="1 columns"):
        similarities(np.zeros((2, 2)), ["a", "b"], ["a"], ("s", "t"))
