"""One thread (or OMP_NUM_THREADS) and no network for every test; what several tests share."""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else it does not stay on loopback
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import pytest
import torch
from helpers.support import random_item
from hypothesis import HealthCheck, settings

from mmembed.data.item import Item
from mmembed.streams import stream_subsets

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, none of them kept, and no limit of time: a machine may be slow.
settings.register_profile(
    "mmembed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mmembed")

STATES = pytest.StashKey[dict[str, Any]]()

TESTS = str(Path(__file__).parent)
OFFLINE = str(Path(__file__).parent / "offline")
if OFFLINE not in sys.path:  # else this process has begun with it, as those that it starts will
    sys.path.append(OFFLINE)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, OFFLINE, TESTS]))
    runpy.run_path(f"{OFFLINE}/sitecustomize.py")


@pytest.fixture
def seven_items() -> list[Item]:
    """One labelled item for each stream subset, all of different lengths."""
    return [random_item(subset, seed) for seed, subset in enumerate(stream_subsets())]


@pytest.fixture(scope="session")
def ragged_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `ragged.write_ragged`; nothing may be written there."""
    from helpers.ragged import write_ragged

    return write_ragged(tmp_path_factory.mktemp("ragged"))


def draw_anew(item: pytest.Item) -> None:
    """What is drawn by chance is the same whatever ran before: also by generators of a file."""
    random.seed(0)
    np.random.seed(0)  # libraries that draw without a generator
    torch.manual_seed(0)
    file = item.getparent(pytest.Module)
    assert file is not None
    found = {n: v for n, v in vars(file.obj).items() if isinstance(v, np.random.Generator)}
    at_first = {name: generator.bit_generator.state for name, generator in found.items()}
    for name, state in file.stash.setdefault(STATES, at_first).items():
        found[name].bit_generator.state = state


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    draw_anew(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    draw_anew(item)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files and tests in any order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Real programs first: they take longest, and a worker that gets one last works alone.

    With --shuffle SEED files come in an order that depends on SEED alone, and so do the tests of
    each; a file's tests stay together, so that what it shares is made once.
    """
    seed = config.getoption("--shuffle")
    if seed is None:
        items.sort(key=lambda item: "/programs/" not in item.nodeid)
        return
    draw = random.Random(seed)
    files = sorted({item.path for item in items})
    place = dict(zip(files, draw.sample(range(len(files)), len(files)), strict=True))
    draw.shuffle(items)
    items.sort(key=lambda item: place[item.path])
