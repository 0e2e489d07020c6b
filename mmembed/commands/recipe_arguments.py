"""`PROGRAM RECIPE --out DIR [settings]`: a recipe's run with the settings of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from mmembed.errors import UsageError

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
        UsageError: no such recipe, or no folder.
    """
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: mmembed {program} RECIPE --out DIR [SETTING ...]\n\nrecipes:")
        for name, recipe in recipes.items():
            print(f"  {name:15} {(recipe.__doc__ or '').splitlines()[0]}")
        print(f"\n`mmembed {program} RECIPE --help` explains the settings of a recipe.\n{example}")
        raise SystemExit(0)
    if not argv or argv[0] not in recipes:
        found = repr(argv[0]) if argv else "nothing"
        raise UsageError(
            f"{program}: name a recipe first, one of {', '.join(recipes)}; found {found}"
        )
    recipe = recipes[argv[0]]
    folder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    folder.add_argument("--out", type=Path)
    known, rest = folder.parse_known_args(argv[1:])
    default = recipe()
    about = (recipe.__doc__ or "").partition("\n\n    Attributes:")[0]
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
