"""One gradient, however the global batch is cut: by accumulation or over real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.support import random_item, small_method

from mmembed.data.item import Item, collate
from mmembed.method import Method
from mmembed.streams import STREAMS, stream_subsets
from mmembed.training.distributed import World
from mmembed.training.step import accumulate_gradients, train_step

ALONE = World(0, 1, torch.device("cpu"))


def items() -> list[Item]:
    """Uneven lengths and streams; some speakers unknown."""
    subsets = [*stream_subsets(), STREAMS, ("audio",)]
    return [
        random_item(s, seed, speaker=-1 if seed in (1, 4) else None)
        for seed, s in enumerate(subsets)
    ]


def gradients(method: Method, cuts: list[list[int]]) -> dict[str, torch.Tensor]:
    every = items()
    method.zero_grad()
    accumulate_gradients(method, [collate([every[i] for i in cut]) for cut in cuts], ALONE)
    return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


def relative(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference over the largest entry of the whole gradient."""
    scale = max(float(g.abs().max()) for g in expected.values())
    return max(float((found[n] - g).abs().max()) for n, g in expected.items()) / scale


def test_means_of_batches_add_up() -> None:
    """Of two batches of one size; and a clip of 0 lets any gradient through."""
    method = small_method()
    every = [random_item(STREAMS, seed, speaker=seed % 2) for seed in range(4)]
    halves = [collate(every[:2]), collate(every[2:])]
    summed: dict[str, torch.Tensor] = {}
    for half in halves:
        method.zero_grad()
        accumulate_gradients(method, [half], ALONE)
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None
            summed[name] = summed.get(name, 0) + parameter.grad
    method.zero_grad()
    accumulate_gradients(method, halves, ALONE, means=2)
    found = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    assert relative(found, summed) < 1e-5
    method.zero_grad()
    stopped = torch.optim.SGD(method.parameters(), lr=0.0)
    norm = train_step(method, stopped, halves, rate=0.0, clip=0.0, world=ALONE, means=2)
    expected = torch.cat([g.flatten() for g in found.values()]).norm()
    assert norm.gradient_norm == pytest.approx(float(expected), rel=1e-4) and norm.applied


CUTS = [
    [[0, 1, 2], [3, 4, 5, 6, 7, 8]],
    [[1], [4], [0, 2, 3, 5, 6, 7, 8]],
    [[i] for i in range(9)],
]


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("loss", ["softmax", "margin"])
def test_accumulation_does_not_change_the_gradient(cuts: list[list[int]], loss: str) -> None:
    method = small_method(speaker_loss=loss)
    whole = gradients(method, [list(range(9))])
    assert len(whole) == len(list(method.parameters()))
    assert relative(gradients(method, cuts), whole) < 1e-5


def test_every_parameter_has_a_gradient_whatever_is_missing() -> None:
    method = small_method()
    for place, subset in enumerate(stream_subsets()):
        method.zero_grad()
        batch = collate([random_item(subset, place, speaker=-1)])
        accumulate_gradients(method, [batch], ALONE)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_an_infinite_loss_changes_no_weight() -> None:
    method = small_method()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    optimizer = torch.optim.AdamW(method.parameters())
    batch = collate(items())
    batch.inputs["audio"].values[0, 0] = float("inf")
    result = train_step(method, optimizer, [batch], rate=1e-3, clip=1.0, world=ALONE)
    assert not result.applied
    assert all(torch.equal(before[n], v) for n, v in method.state_dict().items())


def test_a_step_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever brings a number from the device to the program: called in the step, all counted."""
    waits = []

    def counted(name: str) -> None:
        original = getattr(torch.Tensor, name)

        def call(*arguments: object, **settings: object) -> object:
            caller = sys._getframe(1).f_code.co_filename
            if caller.endswith(("training/step.py", "training/distributed.py")):
                waits.append(name)
            return original(*arguments, **settings)

        monkeypatch.setattr(torch.Tensor, name, call)

    for name in ("item", "tolist", "cpu", "__float__", "__bool__", "__int__"):
        counted(name)
    method = small_method()
    optimizer = torch.optim.AdamW(method.parameters())
    batches = [collate(items()[:4]), collate(items()[4:])]
    result = train_step(
        method, optimizer, batches, rate=1e-3, clip=1.0, world=ALONE, requests=lambda: (True, False)
    )
    assert waits == ["tolist"]
    assert result.applied and result.requests == (1, 0)


WORKER = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from test_step import items
from mmembed.data.item import collate
from helpers.support import small_method
from mmembed.training.distributed import join_world
from mmembed.training.step import accumulate_gradients

shares = [[0, 1, 2, 3, 5, 6, 8], [4, 7]]  # uneven; an unlabelled item among few
with join_world() as world:
    method = small_method()
    model = DistributedDataParallel(method)
    every = items()
    mine = shares[world.rank]
    cuts = [mine[:1], mine[1:]] if world.rank == 0 else [mine]
    accumulate_gradients(model, [collate([every[i] for i in cut]) for cut in cuts], world)
    if world.is_main:
        torch.save({n: p.grad for n, p in method.named_parameters()}, sys.argv[1])
"""


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    base = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "PYTHONPATH": paths, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, str(tmp_path / "gradients.pt")]
    workers = [
        subprocess.Popen(command, env={**base, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    method = small_method()
    expected = gradients(method, [list(range(9))])
    assert set(found) == set(expected)
    assert relative(found, expected) < 1e-5
