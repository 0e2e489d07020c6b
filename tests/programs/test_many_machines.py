"""What docs/many-machines.md shows, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.extracting import Extract, contents

PAGE = Path(__file__).parents[2] / "docs" / "many-machines.md"
WORK = ["corpus/shards", "--records-per-shard", "6"]


def block(language: str) -> str:
    """The one block of code in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return str(found)


@pytest.fixture(scope="module")
def expected(extract: Extract, here: Path) -> dict[str, bytes]:
    """What one process leaves."""
    code, said = extract(*WORK, "--out", "whole")
    assert code == 0, said
    return contents(here / "whole")


def test_tasks_of_a_slurm_array_share_the_work(here: Path, expected: dict[str, bytes]) -> None:
    (here / "extract.sbatch").write_text(block("bash"))
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(here),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_TASK_COUNT": "2",
        "SLURM_ARRAY_TASK_MIN": "0",
    }
    tasks = [
        subprocess.Popen(
            ["bash", str(here / "extract.sbatch"), *WORK, "--encoder", "encoder", "--out", "array"],
            cwd="/", env={**environment, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert all(f"rank {n} of 2 (SLURM array)" in text for n, text in enumerate(said))
    assert contents(here / "array") == expected


WITHOUT_SPARK = """
import pickle, subprocess, sys
from types import SimpleNamespace

RUN = "import pickle, sys; f, part = pickle.load(sys.stdin.buffer); [f(one) for one in part]"

class Partitions:
    def __init__(self, values, count):
        assert len(values) == count == 5
        self.parts = values[::2], values[1::2]
    def foreach(self, function):
        for part in self.parts:
            work = pickle.dumps((function, part))
            subprocess.run([sys.executable, "-c", RUN], input=work, cwd="/", check=True)

spark = SimpleNamespace(sparkContext=SimpleNamespace(parallelize=Partitions))
"""

WITH_SPARK = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
"""


@pytest.mark.long
@pytest.mark.parametrize("spark", [WITHOUT_SPARK, WITH_SPARK], ids=["without", "with"])
def test_spark_makes_shards(here: Path, expected: dict[str, bytes], spark: str) -> None:
    name = "processes"
    if spark is WITH_SPARK:
        name = "spark"
        pytest.importorskip("pyspark")
    shown = block("python").replace("512", "6").replace('"embeddings"', repr(name))
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, "-c", spark + shown], cwd=here, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 embeddings in" in done.stdout
    assert contents(here / name) == expected
