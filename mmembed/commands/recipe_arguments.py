"""`PROGRAM RECIPE --out DIR [settings]`: a recipe's run with the settings of the command line.

In the place of a recipe may stand the run.json of another run: its settings are the defaults then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from mmembed.config import from_dict, read_json
from mmembed.errors import UsageError, meant

Run = TypeVar("Run")


def parse_recipe(
    program: str, recipes: Mapping[str, Callable[[], Run]], argv: Sequence[str], example: str
) -> tuple[Run, Path]:
    """The run and its folder.

    Args:
        program: name of the command.
        recipes: name -> what makes the run with its default settings.
        argv: the arguments of the command.
        example: a complete command, for the help.

    Raises:
        UsageError: no such recipe, no folder, or a run.json that does not hold settings.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: mmembed {program} RECIPE --out DIR [SETTING ...]\n\nrecipes:")
        for name, recipe in recipes.items():
            print(f"  {name:15} {(recipe.__doc__ or '').splitlines()[0]}")
        print(
            f"  {'RUN/run.json':15} the settings of another run\n\n"
            f"`mmembed {program} RECIPE --help` explains the settings of a recipe.\n{example}"
        )
        raise SystemExit(0)
    recorded = argv and argv[0].endswith(".json")
    if not argv or (argv[0] not in recipes and not recorded):
        found = repr(argv[0]) if argv else "nothing"
        raise UsageError(
            f"{program}: name a recipe first, one of {', '.join(recipes)}, or the run.json of "
            f"another run; found {found}{meant(argv[0], recipes) if argv else ''}"
        )
    default, about = _recorded(program, recipes, argv[0]) if recorded else _fresh(recipes[argv[0]])
    folder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    folder.add_argument("--out", type=Path)
    known, rest = folder.parse_known_args(argv[1:])
    run = tyro.cli(
        type(default),
        default=default,
        args=rest,
        prog=f"mmembed {program} {argv[0]} --out DIR",
        description=f"{about}\n\n{example}",
    )
    if known.out is None:
        raise UsageError(f"{program}: give the folder of the run, --out DIR")
    return run, known.out


def _fresh(recipe: Callable[[], Run]) -> tuple[Run, str]:
    """The run of a recipe, and what the recipe is."""
    return recipe(), (recipe.__doc__ or "").partition("\n\n    Attributes:")[0]


def _recorded(program: str, recipes: Mapping[str, Callable[[], Run]], path: str) -> tuple[Run, str]:
    """The run that a run.json holds."""
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file; name the run.json of a run of {program}")
    settings = read_json(Path(path))
    kinds = {name: type(recipe()) for name, recipe in recipes.items()}
    name = settings.get("name")
    if name not in kinds and len(set(kinds.values())) > 1:
        raise UsageError(f"{path}: is no run of `mmembed {program}`; its recipe is {name!r}")
    kind = kinds.get(str(name), next(iter(kinds.values())))
    return from_dict(kind, settings), f"The settings of {path}."
