"""Every help text has a sentence for each option and an example of the installed command."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.metadata import entry_points

import pytest

from mmembed.data.corpora import CONVERTERS, CORPORA
from mmembed.settings.papers import FINETUNE_RECIPES
from mmembed.settings.pretrain import RECIPES

COMMANDS = [
    *([command.name] for command in entry_points(group="mmembed.commands")),
    *(["pretrain", recipe] for recipe in RECIPES),
    *(["finetune", recipe] for recipe in FINETUNE_RECIPES),
    *(["prepare", corpus] for corpus in ("talkers", "manifest", *CORPORA, *CONVERTERS)),
]


def help_of(command: list[str]) -> str:
    """What `mmembed COMMAND --help` prints, 100 columns wide."""
    (entry,) = entry_points(group="mmembed.commands", name=command[0])
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        entry.load()([*command[1:], "--help"])
    return out.getvalue()


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command):
    text = help_of(command)
    options = re.findall(r"^ {1,3}(--\w.+?)(?:  +(\S.*?))? *$(?:\n +(\S.*))?", text, re.M)
    assert re.search(rf"^ *mmembed {command[0]}\b", text, re.M), "no example"
    assert not re.search(r"^\s*(train|export)/\w+\.py", text, re.M), "a path of the repository"
    bad = [
        (option, about or below)
        for option, about, below in options
        if not re.match(r"[A-Z0-9`\"]", about or below)
    ]
    assert bad == []
