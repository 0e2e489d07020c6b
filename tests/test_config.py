"""Configurations survive JSON and refuse what they do not know."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from mmembed.config import differences, from_dict
from mmembed.errors import UsageError
from mmembed.settings.encoder import EncoderConfig
from mmembed.settings.pretrain import RECIPES, PretrainRun


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    run = RECIPES[name]()
    assert from_dict(PretrainRun, json.loads(json.dumps(asdict(run)))) == run


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"widht": 3}, "unknown setting widht"),
        ({"width": "3"}, "setting width is '3'"),
        ({"width": True}, "setting width is True"),
    ],
)
def test_bad_settings_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_dict(EncoderConfig, data)


def test_nested_bad_settings_are_named() -> None:
    with pytest.raises(UsageError, match=r"method\.encoder\.depth"):
        from_dict(PretrainRun, {"name": "x", "method": {"encoder": {"depth": 3}}})


def test_differences_name_the_leaf() -> None:
    ours = {"optim": {"lr": 0.1, "clip": 1}, "name": "a"}
    theirs = {"optim": {"lr": 0.2, "clip": 1}, "name": "a"}
    assert differences(ours, theirs) == ["optim.lr: 0.1 -> 0.2"]
