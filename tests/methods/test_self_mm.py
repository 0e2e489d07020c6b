"""Self-MM: against a second implementation, streams, resume, cuts, processes."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers.streams import (
    AUDIO,
    ITEMS,
    TEXT,
    VECTORS,
    VIDEO,
    in_training,
    sentiment_batch,
    small_self_mm,
)
from torch import Tensor

from mmembed.batch import Batch, Padded
from mmembed.config import from_dict
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig, StreamReader
from mmembed.training.checkpoint import Position, TrainingState, load_latest, save_checkpoint
from mmembed.training.distributed import World
from mmembed.training.step import StepResult, train_step

ALONE = World(0, 1, torch.device("cpu"))
DOUBLE = torch.float64


# The whole method against the release's way, written a second time in loops.


class Reference:
    """As the release: maps of labels, features and centres, zeros at first; one item at a time."""

    def __init__(self, sentiment: list[float], limit: float, widths: dict[str, int]) -> None:
        self.limit = limit
        self.labels = {name: list(sentiment) for name in widths}
        self.features = {n: [[0.0] * width for _ in sentiment] for n, width in widths.items()}
        self.centres: dict[str, tuple[list[float], list[float]]] = {}

    def losses(self, rows: list[int], scores: dict[str, list[float]]) -> dict[str, float]:
        result = {}
        for name, values in scores.items():
            total = 0.0
            for row, score in zip(rows, values, strict=True):
                label, truth = self.labels[name][row], self.labels["fused"][row]
                weight = 1.0 if name == "fused" else math.tanh(abs(label - truth))
                total += weight * abs(score - label)
            result[name] = total / len(rows)
        return result

    def update(self, rows: list[int], features: dict[str, list[list[float]]], epoch: int) -> None:
        if epoch > 1:
            for place, row in enumerate(rows):
                alpha = {}
                for name, values in features.items():
                    near, far = (distance(values[place], c) for c in self.centres[name])
                    alpha[name] = (far - near) / (near + 1e-8)
                y = self.labels["fused"][row]
                for name in [name for name in features if name != "fused"]:
                    u = 0.5 * alpha[name] / (alpha["fused"] + 1e-8) * y
                    u += 0.5 * (y + alpha[name] - alpha["fused"])
                    u = min(max(u, -self.limit), self.limit)
                    old = self.labels[name][row]
                    self.labels[name][row] = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * u
        for name, values in features.items():
            for place, row in enumerate(rows):
                self.features[name][row] = values[place]
        for name, table in self.features.items():
            signs = [(label > 0) - (label < 0) for label in self.labels[name]]
            self.centres[name] = (centre(table, signs, 1), centre(table, signs, -1))


def distance(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


def centre(table: list[list[float]], signs: list[int], sign: int) -> list[float]:
    chosen = [row for row, found in zip(table, signs, strict=True) if found == sign]
    return [sum(column) / len(chosen) for column in zip(*chosen, strict=True)]


STEPS = [[[0, 1, 2, 3], [4, 5, 6, 7]], [[5, 0, 7, 2], [1, 6, 3, 4]], [[3, 4, 1, 0], [7, 2, 5, 6]]]


def sgd(method: SelfMm) -> torch.optim.Optimizer:
    return torch.optim.SGD(method.parameters())


def step(method: SelfMm, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> StepResult:
    return train_step(method, optimizer, batches, rate=0.05, clip=1.0, world=ALONE)


def test_three_epochs_equal_the_reference() -> None:
    method = small_self_mm().double()
    optimizer = sgd(method)
    every = sentiment_batch(list(range(ITEMS)), missing=False, dtype=DOUBLE)
    widths = dict(zip(method.heads, method.bank.widths, strict=True))
    reference = Reference(every.targets["sentiment"].tolist(), 3.0, widths)  # type: ignore[union-attr]
    for epoch, steps in enumerate(STEPS, 1):
        method.start_epoch(epoch)
        for rows in steps:
            batch = sentiment_batch(rows, missing=False, dtype=DOUBLE)
            features, scores, _ = method._heads(batch)
            expected = reference.losses(rows, {n: s.tolist() for n, s in scores.items()})
            result = step(method, optimizer, [batch])
            reference.update(rows, {n: f.tolist() for n, f in features.items()}, epoch)
            assert {n: result.losses[n] for n in expected} == pytest.approx(expected, abs=1e-9)
            if epoch == 1:
                assert {n for n, loss in result.losses.items() if loss} == {"fused"}
    found = dict(zip(method.heads, method.bank.labels.tolist(), strict=True))
    assert found["fused"] == reference.labels["fused"]
    for place, name in enumerate(widths):
        assert found[name] == pytest.approx(reference.labels[name], abs=1e-9)
        for ours, theirs in zip(method.bank.centres(place), reference.centres[name], strict=True):
            assert ours.tolist() == pytest.approx(theirs, abs=1e-9)
    moved = method.bank.labels[1:] - method.bank.labels[0]
    assert (moved.abs() > 1e-3).all()  # or there was nothing to compare


# Streams.


def packed_stream(lengths: list[int], width: int) -> Padded:
    generator = torch.Generator().manual_seed(0)
    items = [torch.randn(length, width, generator=generator) for length in lengths]
    padded = Padded.stack(items)
    padded.values[~padded.mask] = float("nan")
    return padded


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        (AUDIO, [4, 0, 1, 7]),
        (StreamConfig("text", 5, "first"), [4, 0, 1, 7]),
        (StreamConfig("text", 5, "mean"), [4, 0, 1, 7]),
        (StreamConfig("text", 5, "vector"), [1, 0, 1, 1]),
        (StreamConfig("embedding", 5, "layers", layers=3), [3, 0, 3, 3]),
    ],
)
def test_every_reading_of_a_stream(config: StreamConfig, lengths: list[int]) -> None:
    torch.manual_seed(0)
    reader = StreamReader(config)
    stream = packed_stream(lengths, 5)
    torch.nn.init.normal_(reader.absent)
    if reader.layers is not None:
        torch.nn.init.normal_(reader.layers.logits)

    def expected(item: Tensor) -> Tensor:
        if len(item) == 0:
            return reader.absent
        if config.reading == "lstm":
            hidden, cell = torch.zeros(4), torch.zeros(4)
            weights = dict(reader.lstm.named_parameters())  # type: ignore[union-attr]
            for x in item:  # Hochreiter and Schmidhuber, with forget gates
                gates = weights["weight_ih_l0"] @ x + weights["bias_ih_l0"]
                gates = gates + weights["weight_hh_l0"] @ hidden + weights["bias_hh_l0"]
                take, forget, new, give = gates.split(4)
                cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
                hidden = give.sigmoid() * cell.tanh()
            linear = reader.out[1]  # type: ignore[index]
            return linear.weight @ hidden + linear.bias  # type: ignore[no-any-return]
        if config.reading == "mean":
            return item.sum(0) / len(item)
        if config.reading == "layers":
            weight = reader.layers.logits.exp()  # type: ignore[union-attr]
            return (weight[:, None] * item).sum(0) / weight.sum()
        return item[0]

    vectors, present = reader(stream, 4)
    assert present.tolist() == [length > 0 for length in lengths]
    for row in range(4):
        torch.testing.assert_close(vectors[row], expected(stream.item(row)))


def test_scores_are_those_of_the_paper() -> None:
    """Concatenation, linear, ReLU; linear, ReLU, linear: with the weights of the method."""
    method = small_self_mm()
    batch = sentiment_batch(list(range(ITEMS)), missing=False)
    read = {n: reader(batch.inputs[n], ITEMS)[0] for n, reader in method.readers.items()}
    read["fused"] = torch.cat([read["text"], read["audio"], read["video"]], 1)
    weights = method.state_dict()
    features, scores, _ = method._heads(batch)
    for name, x in read.items():

        def linear(x: Tensor, layer: str, name: str = name) -> Tensor:
            weight, bias = (weights[f"heads.{name}.{layer}.{kind}"] for kind in ("weight", "bias"))
            return x @ weight.T + bias

        expected = linear(x, "features.1").clamp(min=0)
        torch.testing.assert_close(features[name], expected)
        expected = linear(linear(expected, "score.0").clamp(min=0), "score.2")[:, 0]
        torch.testing.assert_close(scores[name], expected)
    assert torch.equal(method.predict(batch)["sentiment"], scores["fused"])


def test_a_missing_stream_has_no_loss_no_label_and_enters_as_its_vector() -> None:
    method = in_training()
    batch = sentiment_batch([0, 6])  # item 0 has text only
    alone = sentiment_batch([6])
    assert batch.inputs["audio"].lengths.tolist() == [0, 8]
    with torch.no_grad():
        losses, without = method(batch), method(alone)
    torch.testing.assert_close(losses["audio"], without["audio"])
    torch.testing.assert_close(losses["video"], without["video"])
    assert losses["text"] > without["text"] and losses["fused"] > without["fused"]
    before = {name: value.clone() for name, value in method.bank.state_dict().items()}
    method.after_step(True, ALONE.gather)
    changed = method.bank.labels[:, 0] != before["labels"][:, 0]
    assert changed.tolist() == [False, True, False, False]  # fused, text, audio, video
    changed = (method.bank.features != before["features"])[0]
    assert [bool(part.any()) for part in changed.split([8, 5, 4, 6])] == [True, True, False, False]
    prediction = method.predict(batch)["sentiment"]
    with torch.no_grad():
        method.readers["audio"].absent.add_(1.0)
    moved = method.predict(batch)["sentiment"] != prediction
    assert moved.tolist() == [True, False]


def test_a_stream_first_seen_later_starts_from_the_known_label() -> None:
    method = in_training()
    method.bank.seen[3, 6] = False
    batch = sentiment_batch([6])
    assert not method(batch)["video"].any()
    method.after_step(True, ALONE.gather)
    known = in_training()
    known.bank.seen[3, 6] = False  # stays out of the centre
    known.bank.labels[3, 6] = known.bank.labels[0, 6]
    known(batch)
    known.after_step(True, ALONE.gather)
    assert method.bank.seen[3, 6]
    assert torch.equal(method.bank.labels, known.bank.labels)


@torch.no_grad()
def test_items_outside_the_training_set_are_scored_by_the_known_label() -> None:
    method = in_training().eval()
    batch = sentiment_batch(list(range(ITEMS)))
    for context in ({}, {"row": torch.full((ITEMS,), -1)}):
        sums = method(Batch(batch.keys, batch.inputs, batch.targets, context))
        error = (method.predict(batch)["sentiment"] - batch.targets["sentiment"]).nan_to_num().abs()
        assert float(sums.pop("fused")) == pytest.approx(float(error.sum()), rel=1e-5)
        assert all(float(value) == 0 for value in sums.values())


def test_one_stream_and_the_multimodal_only_ablation() -> None:
    method = small_self_mm((TEXT,), unimodal_weight=0.0)
    method.start_epoch(1)
    batch = sentiment_batch([0, 2, 4], (TEXT,), missing=False)
    result = step(method, sgd(method), [batch])
    assert set(result.losses) == {"fused"}


# Training: steps that fail, resume, cuts, processes.


def test_a_step_that_was_not_applied_changes_no_label() -> None:
    method = in_training()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    bad = sentiment_batch([0, 6])
    bad.inputs["text"].values[0, 0, 0] = float("inf")
    assert not step(method, sgd(method), [bad]).applied
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    step(method, sgd(method), [sentiment_batch([6])])
    assert torch.equal(method.bank.features[0], before["bank.features"][0])  # nothing was left over


def test_evaluation_leaves_the_bank_alone() -> None:
    method = in_training().eval()
    before = method.bank.labels.clone()
    method(sentiment_batch([0, 6]))
    method.after_step(True, ALONE.gather)
    assert torch.equal(before, method.bank.labels)


def test_half_precision_keeps_the_bank_in_full() -> None:
    batch = sentiment_batch(list(range(ITEMS)))
    plain, half = in_training(), in_training()
    step(plain, sgd(plain), [batch])
    with torch.autocast("cpu", torch.bfloat16):
        assert step(half, sgd(half), [batch]).applied
    assert half.bank.labels.dtype == half.bank.features.dtype == torch.float32
    torch.testing.assert_close(half.bank.features, plain.bank.features, rtol=0.02, atol=0.02)
    torch.testing.assert_close(half.bank.labels, plain.bank.labels, rtol=0, atol=0.2)


def train(
    method: SelfMm, optimizer: torch.optim.Optimizer, steps: list[tuple[int, list[int]]]
) -> None:
    for epoch, rows in steps:
        method.start_epoch(epoch)
        step(method, optimizer, [sentiment_batch(rows)])


def test_resume_in_the_middle_of_an_epoch_is_exact(tmp_path: Path) -> None:
    steps = [(epoch, rows) for epoch, rounds in enumerate(STEPS, 1) for rows in rounds]
    method = small_self_mm()
    optimizer = torch.optim.AdamW(method.parameters())
    train(method, optimizer, steps[:3])
    save_checkpoint(tmp_path, TrainingState.of(method, optimizer), Position(1, 1, 3))
    train(method, optimizer, steps[3:])
    other = small_self_mm()
    other_optimizer = torch.optim.AdamW(other.parameters())
    assert load_latest(tmp_path, other, other_optimizer) == Position(1, 1, 3)
    assert int(other.epoch) == 2
    train(other, other_optimizer, steps[3:])
    expected = method.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in other.state_dict().items())
    assert (method.bank.labels[1:] != method.bank.labels[0]).any()


CUTS = [[[0, 1, 2, 3, 4, 5, 6, 7]], [[2, 0], [7, 5, 3], [1, 4, 6]], [[i] for i in range(8)]]


def trained(cuts: list[list[int]]) -> SelfMm:
    """Three epochs of one step each, over all items, cut into micro-batches."""
    method = small_self_mm().double()
    optimizer = sgd(method)
    for epoch in (1, 2, 3):
        method.start_epoch(epoch)
        step(method, optimizer, [sentiment_batch(cut, dtype=DOUBLE) for cut in cuts])
    return method


@pytest.mark.parametrize("cuts", CUTS[1:])
def test_cutting_a_step_changes_nothing(cuts: list[list[int]]) -> None:
    whole, cut = trained(CUTS[0]), trained(cuts)
    assert (whole.bank.labels[1:] != whole.bank.labels[0]).any()
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=0, atol=1e-9)


WORKER = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from helpers.streams import sentiment_batch, small_self_mm
from mmembed.training.distributed import join_world
from mmembed.training.step import train_step

shares = [[[0, 1], [2, 4, 5, 6]], [[3], [7]]]  # uneven; a micro-batch without a label
with join_world() as world:
    method = small_self_mm().double()
    model = DistributedDataParallel(method)
    optimizer = torch.optim.SGD(method.parameters())
    for epoch in (1, 2, 3):
        method.start_epoch(epoch)
        batches = [sentiment_batch(cut, dtype=torch.float64) for cut in shares[world.rank]]
        train_step(model, optimizer, batches, rate=0.05, clip=1.0, world=world)
    torch.save(method.state_dict(), f"{sys.argv[1]}/{world.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_hold_the_bank_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen(command, env={**base, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    expected = trained(CUTS[0]).state_dict()
    torch.testing.assert_close(states[0], dict(expected), rtol=0, atol=1e-9)


# Wrong use says so.


def test_wrong_use_says_so() -> None:
    method = small_self_mm()
    batch = sentiment_batch([0, 6])
    with pytest.raises(ValueError, match="start_epoch"):
        step(method, sgd(method), [batch])
    with pytest.raises(ValueError, match="no context 'row'"):
        method(Batch(batch.keys, batch.inputs, batch.targets))
    with pytest.raises(ValueError, match="row 9 of 8 items"):
        method(Batch(batch.keys, batch.inputs, batch.targets, {"row": torch.tensor([9, 1])}))
    wide = {**batch.inputs, "text": packed_stream([2, 3], 7)}
    with pytest.raises(ValueError, match=r"text has shape \(2, 3, 7\).* 6\)"):
        method(Batch(batch.keys, wide, batch.targets, batch.context))
    with pytest.raises(ValueError, match="comes from the data"):
        SelfMm(SelfMmConfig())
    for streams in ((), (TEXT, TEXT), (StreamConfig("fused", 4),), (StreamConfig("smell", 4),)):
        with pytest.raises(ValueError, match="each once"):
            SelfMm(SelfMmConfig(streams, items=3))
    vector = StreamReader(StreamConfig("text", 5, "vector"))
    with pytest.raises(ValueError, match="takes one"):
        vector(packed_stream([2, 1], 5), 2)
    layers = StreamReader(StreamConfig("embedding", 5, "layers", layers=2))
    with pytest.raises(ValueError, match="3 layers, the configuration 2"):
        layers(packed_stream([3, 3], 5), 2)


@pytest.mark.parametrize("streams", [(TEXT, AUDIO, VIDEO), VECTORS])
def test_the_configuration_survives_json(streams: tuple[StreamConfig, ...]) -> None:
    config = SelfMmConfig(streams, items=4)
    assert from_dict(SelfMmConfig, asdict(config)) == config
