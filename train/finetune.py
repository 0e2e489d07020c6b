"""Train the methods of a study and score them on held-out data.

A study compares variants, such as stream subsets; each has a method of its own for each seed. The
epoch is chosen on dev; the test split is read once, at the end. Several processes share the
methods; each is trained by one of them, so their number changes nothing but the time. A method is
written when it is trained: started again, the program goes on with the next.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmembed.commands.cli import leave, run_program
from mmembed.commands.recipe_arguments import parse_recipe
from mmembed.settings.papers import FINETUNE_RECIPES, study_of

EXAMPLE = """\
examples:
    mmembed finetune emotion --embeddings embeddings --out runs/emotion
    torchrun --nproc-per-node 2 -m mmembed_train.finetune emotion --embeddings embeddings \\
        --out runs/emotion
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then train."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    run, out = parse_recipe("finetune", FINETUNE_RECIPES, arguments, EXAMPLE)
    from mmembed.studies.finetune import finetune  # torch takes seconds, and help needs none

    finetune(study_of(run), run, out)


if __name__ == "__main__":
    leave(run_program(main))
