"""Which part of the work is this process's: as it is told, or as its scheduler says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from mmembed.errors import UsageError


@dataclass(frozen=True)
class Rank:
    """One of several processes or machines that share the work: each makes every world-th shard.

    Attributes:
        rank: 0 to world - 1.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"rank {self.rank} of {self.world}: ranks are 0 to world - 1")

    @property
    def name(self) -> str:
        """For `mmembed.io.locks.lock_folder`."""
        return f"{self.rank}-of-{self.world}" if self.world > 1 else ""

    @property
    def waiting(self) -> str:
        """What a part says that ends while others have work left."""
        return f"rank {self.rank} of {self.world} has made its shards; other ranks are at work"


class _Variables(NamedTuple):
    """Where a scheduler tells rank and world; `first` is the number of its first process, `only_if`
    a variable without which it tells nothing.
    """

    rank: str
    world: str
    first: str = ""
    only_if: str = ""


SCHEDULERS: Final[Mapping[str, _Variables]] = {
    "torchrun": _Variables("RANK", "WORLD_SIZE"),
    "SLURM array": _Variables(
        "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"
    ),
    # A batch script is task 0 of all, too, and runs once: only steps of srun are tasks.
    "SLURM tasks": _Variables("SLURM_PROCID", "SLURM_NTASKS", only_if="SLURM_STEP_ID"),
    "Open MPI": _Variables("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "Kubernetes indexed job": _Variables("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
    "AWS Batch array": _Variables("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
}
"""In the order in which they are asked. Kubernetes tells the index alone: give JOB_COMPLETIONS in
the specification of the job, or --world."""


def find_rank(rank: int | None, world: int | None, environ: Mapping[str, str]) -> tuple[Rank, str]:
    """The part of this process, and who said so ("" where it is alone).

    Tasks of a SLURM array that has several tasks each are counted through. Inside torchrun, which
    may itself have been started by a scheduler, torchrun is believed.

    Args:
        rank: as a user gives it, None = not given.
        world: likewise; both or neither, but a world alone goes with an index of Kubernetes.
        environ: environment variables.

    Raises:
        UsageError: schedulers contradict each other, or one says half.
    """
    if rank is not None and world is not None:
        return Rank(rank, world), "--rank and --world"
    found: dict[str, Rank] = {}
    for name, variables in SCHEDULERS.items():
        if variables.rank not in environ or (
            variables.only_if and variables.only_if not in environ
        ):
            continue
        of = environ.get(variables.world) or (None if world is None else str(world))
        if of is None:
            raise UsageError(
                f"{variables.rank} is set and {variables.world} is not: give --rank and --world"
            )
        try:
            first = int(environ.get(variables.first) or 0) if variables.first else 0
            found[name] = Rank(int(environ[variables.rank]) - first, int(of))
        except (ValueError, UsageError) as error:
            raise UsageError(
                f"{name} ({variables.rank}): {error}; give --rank and --world"
            ) from None
    if "torchrun" in found and "TORCHELASTIC_RUN_ID" in environ:
        found = {"torchrun": found["torchrun"]}
    array, tasks = found.get("SLURM array"), found.get("SLURM tasks")
    if array is not None and tasks is not None:
        del found["SLURM tasks"]
        rank_of_all = array.rank * tasks.world + tasks.rank
        found["SLURM array"] = Rank(rank_of_all, array.world * tasks.world)
    several = {name: part for name, part in found.items() if part.world > 1}
    if len({*several.values()}) > 1:
        said = ", ".join(
            f"{name} says {part.rank} of {part.world}" for name, part in several.items()
        )
        raise UsageError(f"{said}: give --rank and --world")
    if several:
        name, part = next(iter(several.items()))
        if world is not None and world != part.world:
            raise UsageError(f"--world {world}, but {name} says {part.world}: give --rank, too")
        return part, name
    if rank is not None or (world or 1) > 1:
        raise UsageError("give --rank and --world, not one of them")
    return Rank(), ""
