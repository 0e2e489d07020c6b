"""One thread and no telemetry for every test; clips and batches that several tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support import random_item

from mmembed.batch import stream_subsets
from mmembed.data.collate import Item

torch.set_num_threads(1)


@pytest.fixture
def seven_items() -> list[Item]:
    """One labelled item for each stream subset, all of different lengths."""
    return [random_item(subset, seed) for seed, subset in enumerate(stream_subsets())]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real programs first: they take longest, and a worker that gets one last works alone."""
    items.sort(key=lambda item: "/programs/" not in item.nodeid)
