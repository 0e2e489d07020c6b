"""Sound in shards: FLAC without loss that others read alike; what is no such FLAC is one line."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from mmembed.data.shards.format import MOST_SAMPLES, decode
from mmembed.data.shards.layout import Record, ShardSet, shard_path, write_shard

NOISE = np.random.default_rng(0).integers(-(2**15), 2**15, 5_000).astype(np.int16)


def flac(samples: NDArray[np.int16] = NOISE, rate: int = 16_000, kind: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, kind, format="FLAC")
    return file.getvalue()


@pytest.mark.parametrize(
    "samples",
    [
        NOISE,
        NOISE[:1],
        np.array([-(2**15), 2**15 - 1] * 300, np.int16),
        np.zeros(4_097, np.int16),
        (9_000 * np.sin(np.arange(48_000) / 9)).astype(np.int16),
    ],
)
def test_nothing_is_lost_and_others_read_the_same(
    tmp_path: Path, samples: NDArray[np.int16]
) -> None:
    write_shard(shard_path(tmp_path, 0), [Record("a", {"audio.flac": samples})], {})
    read = ShardSet(tmp_path).read(0).members["audio.flac"]
    assert read.dtype == np.int16 and np.array_equal(read, samples)
    tar = shard_path(tmp_path, 0).read_bytes()
    with av.open(io.BytesIO(tar[tar.index(b"fLaC") :].rstrip(b"\0"))) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        assert container.streams.audio[0].rate == 16_000
    assert np.array_equal(np.concatenate(frames, axis=1)[0], samples)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.int16),
        np.zeros((9, 2), np.int16),
        np.zeros(9, np.float32),
        np.broadcast_to(np.int16(0), MOST_SAMPLES + 1),
    ],
)
def test_what_would_not_come_back_is_not_written(
    tmp_path: Path, samples: NDArray[np.int16]
) -> None:
    with pytest.raises(ValueError, match=r"audio\.flac is (int16|float32) \("):
        write_shard(shard_path(tmp_path, 0), [Record("a", {"audio.flac": samples})], {})


def announcing(count: int) -> bytes:
    """FLAC whose header promises so many samples (RFC 9639, 8.2)."""
    data = bytearray(flac())
    numbers = int.from_bytes(data[18:26]) >> 36 << 36 | count
    data[18:26] = numbers.to_bytes(8)
    return bytes(data)


def as_wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, NOISE, 16_000, "PCM_16", format="WAV")
    return file.getvalue()


HOSTILE = {
    "no FLAC": (as_wav, "is no FLAC"),
    "nothing": (bytes, "is no FLAC"),
    "a few bytes": (lambda: flac()[:25], "is no FLAC"),
    "a header alone": (lambda: flac()[:42], "has 0 of 5000 samples|cannot be decoded"),
    "cut short": (lambda: flac()[:-2_000], "of 5000 samples|cannot be decoded"),
    "wrong rate": (lambda: flac(rate=44_100), "1 channels of 16 bits at 44100 Hz"),
    "stereo": (lambda: flac(NOISE.reshape(-1, 2)), "2 channels of 16 bits at 16000 Hz"),
    "24 bit": (lambda: flac(kind="PCM_24"), "1 channels of 24 bits"),
    "a day": (lambda: announcing(24 * MOST_SAMPLES), "announces 1382400000 samples"),
    "all that fits": (lambda: announcing(2**36 - 1), "announces 68719476735 samples"),
    "an unknown number": (lambda: announcing(0), "announces 0 samples"),
    "more than there is": (lambda: announcing(6_000), "5000 of 6000|cannot be decoded"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_such_flac_is_refused(name: str) -> None:
    make, message = HOSTILE[name]
    with pytest.raises(ValueError, match=rf"^audio\.flac .*({message})"):
        decode("audio.flac", np.frombuffer(make(), np.uint8))


def test_any_byte_of_a_forged_flac_may_be_wrong() -> None:
    """Sound of the right length or one line, never a crash: the decoder runs in this process."""
    whole, draw = np.frombuffer(flac(), np.uint8), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = whole.copy()
        data[draw.integers(0, len(data), 3)] = draw.integers(0, 256, 3)
        data[draw.integers(0, 64)] ^= 1 << int(draw.integers(8))  # mostly of the headers
        try:
            read = decode("audio.flac", data)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert read.dtype == np.int16 and read.shape == NOISE.shape
    assert refused > 50
