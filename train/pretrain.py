"""Train the encoder on speech recognition and speaker classification.

The same command again continues the run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmembed.commands.cli import leave, run_program
from mmembed.commands.recipe_arguments import parse_recipe
from mmembed.settings.pretrain import RECIPES

EXAMPLE = """\
examples:
    mmembed pretrain tiny --data.shards corpus/shards --out runs/tiny
    torchrun --nproc-per-node 2 -m mmembed_train.pretrain tiny --data.shards corpus/shards \\
        --out runs/tiny
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then train."""
    run, out = parse_recipe("pretrain", RECIPES, sys.argv[1:] if argv is None else argv, EXAMPLE)
    from mmembed.pretraining.pretrain import pretrain  # torch takes seconds, and help needs none

    pretrain(run, out)


if __name__ == "__main__":
    leave(run_program(main))
