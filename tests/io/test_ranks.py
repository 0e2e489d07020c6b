"""Ranks as schedulers tell them, with the variables that each of them sets."""

from __future__ import annotations

import pytest

from mmembed.errors import UsageError
from mmembed.io.ranks import Rank, find_rank

SLURM_ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4",
}  # fmt: skip
SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "part", "who"),
    [
        ({}, Rank(), ""),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Rank(1, 2), "torchrun"),
        (SLURM_ARRAY, Rank(2, 4), "SLURM array"),
        (SRUN, Rank(1, 3), "SLURM tasks"),
        ({**SLURM_ARRAY, **SRUN}, Rank(2 * 3 + 1, 12), "SLURM array"),
        # A batch script: one process, whatever the number of tasks of the job.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, Rank(), ""),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, Rank(3, 4), "Open MPI"),
        (
            {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "5"},
            Rank(2, 5),
            "Kubernetes indexed job",
        ),
        (
            {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "9"},
            Rank(0, 9),
            "AWS Batch array",
        ),
        # mpirun within a step of SLURM, both of one mind.
        (
            {**SRUN, "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"},
            Rank(1, 3),
            "SLURM tasks",
        ),
        # torchrun on each node of a job of SLURM.
        (
            {**SRUN, "RANK": "5", "WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"},
            Rank(5, 8),
            "torchrun",
        ),
        ({"RANK": "0", "WORLD_SIZE": "1", **SRUN}, Rank(1, 3), "SLURM tasks"),
    ],
)
def test_each_scheduler(environ: dict[str, str], part: Rank, who: str) -> None:
    assert find_rank(None, None, environ) == (part, who)
    assert find_rank(0, 2, environ) == (Rank(0, 2), "--rank and --world")


def test_a_world_may_be_given_to_an_index_of_kubernetes() -> None:
    assert find_rank(None, 5, {"JOB_COMPLETION_INDEX": "2"})[0] == Rank(2, 5)


@pytest.mark.parametrize(
    ("rank", "world", "environ", "told"),
    [
        (1, None, {}, "not one of them"),
        (None, 3, {}, "not one of them"),
        (2, 2, {}, "rank 2 of 2"),
        (None, None, {"JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETIONS is not"),
        (None, None, {"RANK": "2", "WORLD_SIZE": "2"}, r"torchrun \(RANK\): rank 2 of 2"),
        (None, None, {"RANK": "x", "WORLD_SIZE": "2"}, r"torchrun \(RANK\): invalid literal"),
        (None, None, {**SRUN, "RANK": "0", "WORLD_SIZE": "2"}, "torchrun says 0 of 2, SLURM tasks"),
        (None, 4, SRUN, "--world 4, but SLURM tasks says 3"),
    ],
)
def test_halves_and_contradictions_are_refused(
    rank: int | None, world: int | None, environ: dict[str, str], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        find_rank(rank, world, environ)
