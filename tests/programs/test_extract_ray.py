"""Extraction on a real Ray cluster: nodes that die and drivers that are stopped cost no byte."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
from helpers.clusters import Dies, makers, node_at_work, ray_cluster
from helpers.extracting import PROGRAM, Extract, contents

from mmembed.errors import MmembedError
from mmembed.settings.extract import Extract as Settings

pytestmark = pytest.mark.slow

WORK = ["corpus/shards", "--records-per-shard", "1", "--streams", "audio", "audio+video+text"]


def test_what_cannot_be_done_is_said_in_one_line(extract: Extract, here: Path) -> None:
    alone = "error: -: the processes of --ray have no common stdin; give a manifest instead"
    nobody = "error: --ray 127.0.0.1:9: [Errno 111] Connection refused; `ray start --head` starts"
    for words, line in {
        ("clips", "--take", "--ray"): "error: --take and --ray: one way to share the work",
        ("-", "--ray"): alone,
        ("clips", "--ray", "127.0.0.1:9"): nobody,
    }.items():
        code, said = extract(*words, "--out", "none")
        assert code == 2 and line in said, said


def test_an_address_may_be_left_out() -> None:
    given = ["clips", "--encoder", "e", "--out", "o"]
    found = [tyro.cli(Settings, args=[*given, *more]).ray for more in ([], ["--ray"])]
    assert found == [None, "auto"]
    assert tyro.cli(Settings, args=[*given, "--ray", "10.0.0.1:6379"]).ray == "10.0.0.1:6379"
    with pytest.raises(SystemExit):
        tyro.cli(Settings, args=["--encoder", "e", "--out", "o", "--ray", "a:1", "clips"])


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([(8, 0), (64, 0)], None, (8, 0, 9)),  # the smallest node is the measure
        ([(8, 0), (64, 0)], 16, (16, 0, 4)),
        ([(0, 0), (4, 0)], None, (4, 0, 1)),  # a head that takes no work
        ([(8, 0), (32, 4), (16, 1)], None, (8, 1, 5)),  # those without GPUs are left out
        ([(8, 0), (32, 4), (16, 1)], 16, (16, 1, 3)),
        ([(2, 0)], 4, (4, 0, 1)),  # one waits until there is such a node
    ],
)
def test_actors_share_the_nodes(
    nodes: list[tuple[int, int]],
    workers: int | None,
    expected: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from mmembed.embeddings.on_ray import _Share

    rows = [{"Alive": True, "Resources": {"CPU": float(c), "GPU": float(g)}} for c, g in nodes]
    gone = {"Alive": False, "Resources": {"CPU": 1.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*rows, gone])
    assert _Share.of(workers) == expected


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(2) as started:
        yield started


def begin(here: Path, out: str, address: str) -> subprocess.Popen[str]:
    """Returns when the first shards are there."""
    command = [sys.executable, str(PROGRAM), *WORK, "--encoder", "encoder"]
    process = subprocess.Popen(
        [*command, "--out", out, "--ray", address],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    before = len([*(here / out).rglob("shard-*.json")])
    while len([*(here / out).rglob("shard-*.json")]) == before and process.poll() is None:
        time.sleep(0.01)
    return process


@pytest.mark.long
def test_a_stopped_driver_and_a_killed_node_cost_nothing(
    extract: Extract, here: Path, cluster: Any
) -> None:
    stopped = begin(here, "shared", cluster.address)
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 75 and "stopped by SIGTERM" in said, said
    until = time.monotonic() + 10
    while makers() and time.monotonic() < until:
        time.sleep(0.1)
    assert not makers()
    left = contents(here / "shared")
    assert "audio/shard-000029.json" not in left
    run = begin(here, "shared", cluster.address)
    cluster.remove_node(node_at_work(cluster), allow_graceful=False)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 0, said
    assert "ray: 3 nodes, room for 2 actors of 1 CPU" in said
    assert "its actor died and another one follows" in said
    assert "60 embeddings in shared, 0 failed" in said
    assert extract(*WORK, "--out", "alone")[0] == 0
    found = contents(here / "shared")
    assert found == contents(here / "alone")
    assert all(found[name] == left[name] for name in left if not name.endswith(".tmp"))


@pytest.mark.long
def test_a_shard_that_kills_its_actors_ends_the_run(cluster: Any) -> None:
    import ray

    from mmembed.embeddings.on_ray import _Crew, _Share

    ray.init(cluster.address, log_to_driver=False)
    try:
        crew = _Crew(Dies((1,)), _Share(1, 0, 1), [0, 1, 2])  # type: ignore[arg-type]
        made = []
        with pytest.raises(MmembedError, match="shard 1: 3 actors died of it; the last: "):
            while crew.waiting or crew.busy:
                crew.hire()
                made += crew.wait()
        assert made[0] == 0
    finally:
        ray.shutdown()
