"""Shards of face crops of a chosen form: made, checked, and refused where they do not fit."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.clips import Film, Voice, tone, write_streams
from helpers.prepared import change_json, verify
from helpers.support import random_item

from mmembed.commands.prepare import main
from mmembed.data.corpora.talkers.face import Face, Pose
from mmembed.data.dataset import Examples
from mmembed.data.inputs import open_sources
from mmembed.data.item import EMPTY, LARGEST_SHIFT, augment_crops, collate
from mmembed.data.loader import SpeechItems
from mmembed.data.manifest.jsonl import read_manifest, write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.features.text import Vocabulary
from mmembed.features.video import SMALL_GREY, CropForm
from mmembed.pretraining.pretrain_data import open_corpus
from mmembed.settings.pretrain import DataConfig
from mmembed.streams import STREAMS

LARGE = CropForm(224, colour=True)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a face, and one of sound alone."""
    folder = tmp_path_factory.mktemp("clips")
    face = cv2.cvtColor(Face(random.Random(3), feminine=True).draw(Pose()), cv2.COLOR_BGR2RGB)
    write_streams(folder / "face.mkv", Film([face] * 10), Voice(tone(0.4)))
    write_streams(folder / "sound.mkv", Voice(tone(0.5)))
    rows = [Utterance(n, f"{n}.mkv", transcript="so it goes") for n in ("face", "sound")]
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def prepare(manifest: Path, out: Path, *options: str) -> Path:
    main(["manifest", str(manifest), "--out", str(out), "--workers", "1", *options])
    return out / "shards"


@pytest.fixture(scope="module")
def shards(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Prepared small and grey, and large and in colour."""
    out = tmp_path_factory.mktemp("prepared")
    options = {"grey": (), "large": ("--crop", "224", "--colour")}
    return {name: prepare(manifest, out / name, *given) for name, given in options.items()}


def test_shards_hold_the_crops_that_were_asked_for(
    manifest: Path, shards: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, form in (("grey", SMALL_GREY), ("large", LARGE)):
        examples = Examples([shards[name]])
        assert examples.crops == form
        held = json.loads((shards[name] / "manifest.json").read_text())["crops"]
        assert held == {"size": form.size, "colour": form.colour}
        row, _ = read_manifest(manifest)
        expected = MediaSource(row, manifest.parent, crops=form).load()
        assert expected.video is not None and expected.video.shape == (10, *form.shape)
        np.testing.assert_array_equal(examples[0].video, expected.video)
        np.testing.assert_array_equal(examples[0].audio, expected.audio)
        assert examples[1].video is None
        member = "video.npy" if form == SMALL_GREY else "video.diff.zst"
        assert set(ShardSet(shards[name]).read(0).members) == {"json", "audio.flac", member}
        assert verify(shards[name].parent) == 0
    with pytest.raises(UsageError, match="holds other utterances, streams or crops than asked for"):
        prepare(manifest, shards["large"].parent)
    with pytest.raises(UsageError, match="crops of 8 pixels: give a whole number from 16 to 512"):
        prepare(manifest, shards["large"].parent, "--crop", "8")


def test_verify_sees_crops_of_another_form(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(manifest, tmp_path, "--crop", "32")
    assert verify(tmp_path) == 0
    for sidecar in folder.glob("shard-*.json"):
        change_json(sidecar, lambda i: i["provenance"].update(crops={"size": 64, "colour": False}))
    assert verify(tmp_path) == 4
    assert "video is uint8 (10, 32, 32); uint8 (any, 64, 64) is expected" in capsys.readouterr().out


def test_a_damaged_form_is_refused(manifest: Path, tmp_path: Path) -> None:
    folder = prepare(manifest, tmp_path)
    for wrong in ({"size": 8}, {"size": "64"}, {"width": 64}, 64, None):
        change_json(folder / "manifest.json", lambda held, wrong=wrong: held.update(crops=wrong))
        with pytest.raises(CorruptError, match=r"manifest\.json: damaged: crops is "):
            Examples([folder])


def test_an_encoder_reads_crops_of_its_form_or_takes_all(
    manifest: Path, shards: dict[str, Path]
) -> None:
    grey, large = shards["grey"], shards["large"]
    assert len(open_sources([grey])) == len(open_sources([large], crops=LARGE)) == 2
    refusal = r"large/shards: face crops of 224 x 224 RGB, but this encoder reads 64 x 64 grey: "
    with pytest.raises(UsageError, match=refusal + r"prepare .* --crop 64, without --colour, or"):
        open_sources([large])
    with pytest.raises(UsageError, match=r"64 x 64 grey, but .* 224 RGB: .* 224, with --colour"):
        open_sources([grey], crops=LARGE)
    assert len(open_sources([large], ("audio", "text"))) == 2
    anything = {"crops": CropForm(32, colour=True), "any_crops": True}
    for folder, form in ((grey, SMALL_GREY), (large, LARGE)):
        crops = open_sources([folder], **anything)[0].load().video  # type: ignore[arg-type]
        assert crops is not None and crops.shape[1:] == form.shape
    for other, form in ((large, "224 x 224 RGB"), (manifest, "32 x 32 RGB")):
        refusal = f"face crops of 64 x 64 grey, .*: of {form}; give those of one form at once"
        with pytest.raises(UsageError, match=refusal):
            open_sources([grey, other], **anything)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        (("grey", "large"), r"holds face crops of 64 x 64 grey, .* of 224 x 224 RGB: prepare both"),
        (("large",), r"face crops of 224 x 224 RGB, but this encoder reads 64 x 64 grey: prepare"),
    ],
)
def test_training_refuses_other_crops(
    shards: dict[str, Path], names: Sequence[str], refusal: str
) -> None:
    folders = tuple(str(shards[name]) for name in names)
    with pytest.raises(UsageError, match=refusal):
        open_corpus(DataConfig(folders))
    spoken = open_corpus(DataConfig(folders, streams=("audio", "text")))
    assert len(spoken.train) == 2 * len(names)


def test_training_items_have_the_crops_of_the_shards(shards: dict[str, Path]) -> None:
    units = Vocabulary.train(["so it goes"] * 9, 100, "char")
    for name, form in (("grey", SMALL_GREY), ("large", LARGE)):
        examples = Examples([shards[name]])
        items = SpeechItems(examples, STREAMS, examples.transcripts(), units, units, {})
        videos = [items.read(number).inputs["video"] for number in range(2)]
        np.testing.assert_array_equal(videos[0], examples[0].video)
        assert videos[0].shape == (10, *form.shape) and not len(videos[1])


def test_crops_in_colour_are_augmented_as_grey_ones_are() -> None:
    disc = np.hypot(*(np.mgrid[:224, :224] - 111.5)) <= 42
    grey = np.where(disc, 200, 40).astype(np.uint8)[None]
    colour = np.stack([grey, 255 - grey, np.full_like(grey, 128)], -1)
    shifts = []
    for seed in range(30):

        def changed(crops: np.ndarray, seed: int = seed) -> np.ndarray:
            generator = torch.Generator().manual_seed(seed)
            return augment_crops(torch.from_numpy(crops), generator).numpy()

        out = changed(colour)
        np.testing.assert_array_equal(out[..., 0], changed(grey))
        inside = out[0, ..., 0] > 0.75 * float(out[0, 112, 112, 0])
        shifts.append([places.mean() - 111.5 for places in np.nonzero(inside)])
    largest = LARGEST_SHIFT * 224 / 64
    assert 0.5 * largest < np.abs(shifts).max() < largest + 2


def test_a_batch_may_lack_video_of_another_form() -> None:
    shapes = ((0, 64, 64), (3, 224, 224, 3), (2, 224, 224, 3))
    items = [random_item((), number) for number in range(3)]
    videos = [torch.full(shape, 7, dtype=torch.uint8) for shape in shapes]
    held = [
        type(item)(item.key, {**EMPTY, "audio": torch.ones(40, 80), "video": video})
        for item, video in zip(items, videos, strict=True)
    ]
    packed = collate(held).inputs["video"]
    assert packed.values.shape == (5, 224, 224, 3) and packed.values.dtype == torch.uint8
    assert packed.lengths.tolist() == [0, 3, 2]
    assert collate(held[:1]).inputs["video"].values.shape == (0, 64, 64)
