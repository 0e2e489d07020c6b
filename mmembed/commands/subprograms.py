"""Programs of this package started as a user starts them, by commands that run several."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mmembed.errors import MmembedError, Stopped

SIGNALLED = (75, 130)
MMEMBED = (sys.executable, "-m", "mmembed.commands.cli")


def torchrun(processes: int, module: str) -> list[str]:
    """The start of a command that runs a program in so many processes; one needs no torchrun.

    Args:
        processes: at least 1.
        module: of the program, in a checkout or an installation.

    Raises:
        MmembedError: it is not installed.
    """
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise MmembedError(f"{module} is not installed: pip install mmembed again")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return [sys.executable, *(launcher if processes > 1 else ()), found.origin]


def run_command(
    what: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end; it ends with this process.

    Args:
        what: it does, for messages: "train the regressor".
        command: program and arguments.
        environment: its variables, if not those of this process.

    Raises:
        Stopped: a signal ended it; the same command goes on.
        MmembedError: it failed.
    """
    from mmembed.training.distributed import follow_parent  # torch takes seconds

    code = subprocess.run(
        command, check=False, preexec_fn=follow_parent, env=environment
    ).returncode
    if code in SIGNALLED:
        raise Stopped(f"stopped while it was to {what}; run again to continue")
    if code:
        raise MmembedError(f"could not {what}: the step ended with exit code {code}")
