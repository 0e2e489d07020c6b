"""Distances from training clips, by numpy, and what is said of a clip that lies far away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmembed.errors import CorruptError
from mmembed.studies import trained_on
from mmembed.studies.trained_on import TrainedOn, TrainingData, describe
from mmembed.studies.training_distance import NEAREST, REFERENCES, TrainingDistances


def vectors(count: int, seed: int = 0, centre: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return centre + torch.randn(count, 3, 8, generator=generator)


def known(values: Tensor, groups: list[str]) -> TrainingDistances:
    mean, scale = values.mean(0), values.std(0, unbiased=False)
    found = TrainingDistances.of(values, mean, scale, groups)
    assert found is not None
    return found


def test_distances_are_those_to_other_speakers() -> None:
    values, groups = vectors(60), [f"s{n % 4}" for n in range(60)]
    found = known(values, groups)
    z = ((values - values.mean(0)) / values.std(0, unbiased=False)).flatten(1).numpy()
    each = np.linalg.norm(z[:, None] - z[None].astype(np.float16).astype(np.float32), axis=-1)
    each[np.array(groups)[:, None] == np.array(groups)[None]] = np.inf
    expected = np.sort(np.sort(each, 1)[:, :NEAREST].mean(1))
    np.testing.assert_allclose(found.distances.numpy(), expected, rtol=1e-3)


def test_a_clip_of_the_kind_is_inside_and_another_is_not() -> None:
    found = known(vectors(400), [f"s{n % 8}" for n in range(400)])
    assert len(found.references) == REFERENCES and len(found.distances) == 400
    same = found.score(vectors(300, seed=1))
    assert sum(place.outside for place in same) <= 15  # 1 % is what is chosen
    assert 0.3 < np.mean([place.quantile for place in same]) < 0.7
    other = found.score(torch.cat([vectors(20, seed=2, centre=3.0), vectors(20, seed=3) * 4]))
    assert all(place.outside and place.quantile == 1 for place in other)
    (lost,) = found.score(torch.full((1, 3, 8), torch.nan))
    assert lost.outside


def test_few_clips(tmp_path: Path) -> None:
    values = vectors(6)
    mean, scale = values.mean(0), values.std(0, unbiased=False)
    assert TrainingDistances.of(values, mean, scale, ["one"] * 6) is None
    two = TrainingDistances.of(values, mean, scale, ["one"] * 5 + ["two"])
    assert two is not None and two.distances.isfinite().all()
    assert two.score(values)[0].quantile <= 1


def test_it_comes_back_as_written_and_damage_is_a_line(tmp_path: Path) -> None:
    found, path = known(vectors(20), ["a", "b"] * 10), tmp_path / "f" / "audio.safetensors"
    found.write(path)
    again = TrainingDistances.read(path, 24)
    assert again.score(vectors(5, seed=1)) == found.score(vectors(5, seed=1))
    with pytest.raises(CorruptError, match="of other vectors"):
        TrainingDistances.read(path, 25)
    held = load_file(path)
    for damaged in (
        {**held, "mean": held["mean"] * torch.nan},
        {**held, "distances": held["distances"][:0].clone()},
        {**held, "more": held["mean"].clone()},
        {**held, "distances": held["distances"].int()},
    ):
        save_file(damaged, path)
        with pytest.raises(CorruptError, match=r"audio\.safetensors") as error:
            TrainingDistances.read(path, 24)
        assert "\n" not in str(error.value)
    path.write_bytes(b"x")
    with pytest.raises(CorruptError, match="no distances"):
        TrainingDistances.read(path, 24)


def test_what_was_trained_on_is_a_line_and_comes_back(tmp_path: Path) -> None:
    assert trained_on.read(tmp_path) is None
    data = TrainingData("talkers", 1840, 20, ("synthetic",), ("en",))
    told = TrainedOn((data, TrainingData("mine", 7, kind="texts")), "a" * 64)
    assert str(told) == "talkers (synthetic), 1,840 clips, 20 speakers; mine, 7 texts"
    trained_on.write(tmp_path, told)
    assert trained_on.read(tmp_path) == told
    assert str(TrainedOn()) == "not recorded"
    (tmp_path / "trained-on.json").write_text('{"data": [{"name": "a", "items": -1}]}')
    with pytest.raises(CorruptError, match=r"data\[0\].items is -1"):
        trained_on.read(tmp_path)
    assert describe(["a/x/shards", "b", "c", "d.wav"], []).name == "x, b, c and 1 more"
