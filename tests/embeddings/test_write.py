"""From examples to shards, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.encoders import write_encoder
from helpers.prepared import example

from mmembed.batch import STREAMS
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import utterance_of
from mmembed.data.media.load import ReadySource
from mmembed.data.shards.layout import Record, ShardSet, shard_sidecars
from mmembed.embedder import Embedder
from mmembed.embeddings.plan import Plan, Subset
from mmembed.embeddings.write import Content, Embedded, Threads, make_shards
from mmembed.errors import DataError

SUBSETS: list[Subset] = [("audio",), ("text",), ("audio", "video")]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return Content(Embedder.from_pretrained(write_encoder(tmp_path_factory.mktemp("encoder"))))


def clips() -> list[Example | DataError]:
    """Five: one broken, one of text alone, one of others' features alone."""
    made: list[Example | DataError] = [example(n) for n in range(5)]
    made[1] = DataError("clip-1", "damaged", "cannot be decoded")
    made[2] = example(2, audio=None, video=None)
    vectors = {"audio": np.ones((3, 7), np.float32)}
    made[3] = example(3, audio=None, video=None, text=None, features=vectors)
    return made


def make(
    content: Content, folders: dict[Path, Subset], examples: Iterator[object], threads: int = 1
) -> None:
    """One shard of five clips in each folder; a batch has two, of 25 frames in all."""
    plan, read = plan_of(5, folders, 512), list[int]()
    assert plan.numbers == range(1) and not plan.complete
    make_all(content, plan, lambda sources: map(second, sources, examples), threads, read.append)
    assert plan.complete and read[-1] == 5


def second(_: object, example: object) -> object:
    return example


def plan_of(clips: int, folders: dict[Path, Subset], size: int) -> Plan:
    sources = [ReadySource(f"clip-{n}", f"clip-{n}", lambda: example(0)) for n in range(clips)]
    return Plan(sources, folders, size)


def make_all(
    content: Content,
    plan: Plan,
    load: Callable[[Iterable[object]], Iterator[object]],
    threads: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    with Threads(threads) as pool:
        make_shards(
            plan,
            plan.numbers,
            load,  # type: ignore[arg-type]
            content,
            lambda subset: {"of": list(subset)},
            25,
            pool,
            on_progress,
        )


def test_one_pass_over_the_clips_makes_all_subsets(content: Content, tmp_path: Path) -> None:
    together = {tmp_path / "together" / "+".join(subset): subset for subset in SUBSETS}
    make(content, together, iter(clips()))  # an iterator gives each clip once
    for folder, subset in together.items():
        alone = tmp_path / "alone" / folder.name
        make(content, {alone: subset}, iter(clips()))
        for name in ("shard-000000.tar", "shard-000000.json"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes()
    failed = {
        folder.name: {
            f["item"]: f["reason"] for f in shard_sidecars(folder)[0]["provenance"]["failed"]
        }
        for folder in together
    }
    lost = {"clip-1": "damaged", "clip-3": "no_streams"}
    assert failed == {
        "audio": lost | {"clip-2": "no_streams"},
        "text": lost,
        "audio+video": lost | {"clip-2": "no_streams"},
    }
    assert ShardSet(tmp_path / "together" / "text").keys == ("clip-0", "clip-2", "clip-4")


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_byte(content: Content, tmp_path: Path, threads: int) -> None:
    alone, together = ({tmp_path / name: SUBSETS[2]} for name in ("alone", "together"))
    make(content, alone, iter(clips()))
    make(content, together, iter(clips()), threads)
    for name in ("shard-000000.tar", "shard-000000.json"):
        written = (tmp_path / "together" / name).read_bytes()
        assert written == (tmp_path / "alone" / name).read_bytes()


def test_the_next_shard_is_decoded_while_the_last_batches_are_embedded(
    content: Content, tmp_path: Path
) -> None:
    """Embedding waits for the first clip of the next shard, which would never come if the shard
    before it were finished first.
    """
    plan = plan_of(6, {tmp_path: SUBSETS[0]}, 2)
    began = [threading.Event() for _ in range(3)]

    def load(sources: Iterable[object]) -> Iterator[Example]:
        for number, _ in enumerate(sources):
            began[number // 2].set()
            assert len(list(tmp_path.glob(".shard-*.tmp"))) <= 2
            yield example(number)

    class Waiting(Content):
        def embed(self, examples: Sequence[Example], *how: Any) -> Embedded:
            shard = int(examples[0].key.removeprefix("clip-")) // 2
            assert began[min(shard + 1, 2)].wait(20)
            return super().embed(examples, *how)

    make_all(Waiting(content.embedder), plan, load)
    assert plan.complete
    assert ShardSet(tmp_path).keys == tuple(f"clip-{n}" for n in range(6))


def test_two_shards_are_open_at_most(content: Content, tmp_path: Path) -> None:
    folders = {tmp_path / "+".join(subset): subset for subset in SUBSETS}
    plan, most = plan_of(8, folders, 1), 0

    def load(sources: Iterable[object]) -> Iterator[Example]:
        nonlocal most
        for number, _ in enumerate(sources):
            opened = {path.name.split(".")[1] for path in tmp_path.rglob(".shard-*.tmp")}
            most = max(most, len(opened))
            yield example(number)

    make_all(content, plan, load, threads=3)
    assert plan.complete and most == 2


def test_what_breaks_off_keeps_the_shards_before_it(content: Content, tmp_path: Path) -> None:
    plan = plan_of(8, {tmp_path: SUBSETS[0]}, 2)

    def load(sources: Iterable[object]) -> Iterator[Example]:
        for number, _ in enumerate(sources):
            if number == 7:
                raise OSError(28, "No space left on device")
            yield example(number)

    with pytest.raises(OSError, match="No space"):
        make_all(content, plan, load)
    assert [number for number in plan.numbers if plan.missing(number)] == [2, 3]
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_breaks_off_commits_none_of_the_subsets(content: Content, tmp_path: Path) -> None:
    def breaking() -> Iterator[Example | DataError]:
        yield from clips()[:3]
        raise OSError(28, "No space left on device")

    folders = {tmp_path / "+".join(subset): subset for subset in SUBSETS}
    with pytest.raises(OSError, match="No space"):
        make(content, folders, breaking())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_vector_that_is_not_finite_is_a_failure(content: Content) -> None:
    broken = Embedder.from_pretrained  # the encoder of its own: its weights are changed
    folder = content.embedder
    loud = replace(content, dtype="float16")
    with pytest.MonkeyPatch.context() as patch:
        weight = folder.encoder.norms["audio"].weight
        patch.setattr(weight, "data", weight.data * 1e6)
        clips = [example(0), example(2, audio=None, video=None)]
        found = loud.embed(clips, [STREAMS])[STREAMS]
    assert broken is not None
    lost = found["clip-0"]
    assert isinstance(lost, DataError) and lost.reason == "not_finite"
    assert str(lost).startswith("clip-0: pooled.npy is not finite in float16")
    assert not isinstance(found["clip-2"], DataError)


def test_a_record_repeats_the_whole_row(content: Content) -> None:
    row = {"speaker": None, "dialogue": "talk-7", "turn": 3, "licence": "research only"}
    clip = example(0, **row, start=1.5, media="https://user:secret@host/a.mp4?token=1")
    (record,) = content.embed([clip], [STREAMS])[STREAMS].values()
    assert isinstance(record, Record)
    told = record.members["json"]
    assert {name: told[name] for name in row} == row and told["start"] == 1.5
    assert told["transcript"] == "good morning" and told["media"] == "https://host/a.mp4"
    again = utterance_of(record.key, told)
    assert again == replace(clip.utterance, media="https://host/a.mp4")
