"""One thread and no network for every test; clips and batches that several tests share."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support import random_item

from mmembed.batch import stream_subsets
from mmembed.data.collate import Item

torch.set_num_threads(1)

OFFLINE = str(Path(__file__).parent / "offline")
if OFFLINE not in sys.path:  # else this process has begun with it, as those that it starts will
    sys.path.append(OFFLINE)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, OFFLINE]))
    runpy.run_path(f"{OFFLINE}/sitecustomize.py")


@pytest.fixture
def seven_items() -> list[Item]:
    """One labelled item for each stream subset, all of different lengths."""
    return [random_item(subset, seed) for seed, subset in enumerate(stream_subsets())]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real programs first: they take longest, and a worker that gets one last works alone."""
    items.sort(key=lambda item: "/programs/" not in item.nodeid)
