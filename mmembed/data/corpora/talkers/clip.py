"""One clip: who says what and how, and the MP4 file of it."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import av
import cv2
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from mmembed.data.corpora.talkers.acting import (
    AGREEMENT,
    draw_expression,
    draw_feeling,
    label,
    pose_of,
    prosody_of,
)
from mmembed.data.corpora.talkers.face import SIDE, Face, blink, make_shot
from mmembed.data.corpora.talkers.grammar import Expression, make_sentence
from mmembed.data.corpora.talkers.voice import Speech, synthesise
from mmembed.data.manifest.utterance import Utterance

FRAME_RATE: Final = 25  # Hz
SOUND_RATE: Final = 22_050  # Hz, espeak-ng's own
HOP: Final = 882  # samples of sound to a frame
assert HOP * FRAME_RATE == SOUND_RATE

FEMININE: Final = (
    "f1", "f2", "f3", "f4", "f5", "Annie", "anika", "belinda", "linda", "steph", "aunty",
    "grandma", "shelby", "Andrea", "Alicia",
)  # fmt: skip
MASCULINE: Final = (
    "m1", "m3", "m5", "m7", "m8", "Alex", "Andy", "Diogo", "Gene", "Gene2", "Reed", "david",
    "grandpa", "paul", "ed",
)  # fmt: skip
ACCENTS: Final = (
    "en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbcwmd", "en-029",
)  # fmt: skip
CAST: Final = len(FEMININE) + len(MASCULINE)
MOST_SPEAKERS: Final = CAST * len(ACCENTS)

LEVEL: Final = 0.09  # root mean square of a neutral voice
# Per speaker index, modulo 15: 10 of 15 speakers train, 2 are dev, 3 are test, of both sexes.
SPEAKER_SPLITS: Final = {1: "test", 6: "test", 11: "test", 3: "dev", 10: "dev"}
HELDOUT_OF: Final = 8  # one clip of eight of a training speaker is held out

# Mouths by the first letter of espeak-ng's phoneme names: how open, and how spread (or rounded).
OPENNESS: Final = {
    "a": 1.0, "A": 1.0, "0": 0.9, "V": 0.8, "O": 0.8, "E": 0.75, "o": 0.7, "e": 0.65, "3": 0.6,
    "@": 0.55, "I": 0.5, "U": 0.45, "i": 0.4, "u": 0.4, "m": 0.0, "b": 0.0, "p": 0.0, "f": 0.1,
    "v": 0.1,
}  # fmt: skip
SPREAD: Final = {
    "i": 0.9, "I": 0.6, "e": 0.6, "E": 0.4, "s": 0.4, "z": 0.4, "a": 0.2, "o": -0.7, "O": -0.7,
    "U": -0.8, "w": -1.0, "u": -1.0, "S": -0.5, "r": -0.4,
}  # fmt: skip
LICENCE: Final = "talkers: synthetic voices and drawn faces"
CONSONANT: Final = 0.35  # openness of all other phonemes


@dataclass(frozen=True)
class TalkerClip:
    """The script of a clip: a function of seed, speaker and index, and all that its file needs."""

    seed: int
    speaker: int
    index: int
    sentence: str
    words: Expression
    voice: Expression
    face: Expression

    @property
    def key(self) -> str:
        return f"talkers-s{self.speaker:02d}-{self.index:03d}"

    @property
    def utterance(self) -> Utterance:
        """Its row of the manifest."""
        return Utterance(
            key=self.key,
            media=f"clips/{self.key}.mp4",
            transcript=self.sentence,
            language="en",
            speaker=f"talkers-s{self.speaker:02d}",
            split=split_of(self.speaker, self.index),
            licence=LICENCE,
            labels=label(self.words, self.voice, self.face),
        )


def split_of(speaker: int, index: int) -> str:
    """The split of a clip."""
    split = SPEAKER_SPLITS.get(speaker % 15, "train")
    if split == "train" and index % HELDOUT_OF == HELDOUT_OF // 2 - 1:
        return "heldout"
    return split


def write_script(seed: int, speaker: int, index: int) -> TalkerClip:
    """Decide what is said and expressed; takes microseconds."""
    rng = random.Random(f"script {seed} {speaker} {index}")
    reserved = split_of(speaker, index) != "train"
    feeling = draw_feeling(rng)
    felt = feeling if rng.random() < AGREEMENT else None
    sentence, words = make_sentence(feeling, reserved, rng)
    voice, face = draw_expression(felt, rng), draw_expression(felt, rng)
    return TalkerClip(seed, speaker, index, sentence, words, voice, face)


def render(clip: TalkerClip) -> bytes:
    """The MP4 file of a clip: H.264 at 25 Hz, AAC at 22.05 kHz mono, of the same length."""
    rng = random.Random(f"film {clip.seed} {clip.speaker} {clip.index}")
    sound, speech, lead = _speak(clip, rng)
    opening, spread = mouth_of(sound, speech, lead)
    rest = pose_of(clip.face)
    frames = len(sound) // HOP
    period, phase = rng.uniform(2.0, 4.0), rng.uniform(0.0, 4.0)
    sways = [[rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 3.5)] for _ in range(3)]
    seconds = np.arange(frames) / FRAME_RATE
    dx, dy, tilt = (np.sin(start + speed * seconds) for start, speed in sways)
    actor = _face(clip.seed, clip.speaker)
    shot = make_shot(rng)
    pictures = [
        shot.take(
            actor.draw(
                replace(
                    rest,
                    open=rest.open * (1 - opening[t]) + opening[t],
                    spread=rest.spread + spread[t],
                    lids=rest.lids * blink(seconds[t], period, phase),
                    brows=rest.brows + 0.15 * opening[t],
                    dx=2.0 * dx[t],
                    dy=1.2 * dy[t],
                    tilt=2.5 * tilt[t],
                )
            )
        )
        for t in range(frames)
    ]
    return _encode(pictures, sound)


def is_feminine(speaker: int) -> bool:
    """Voices of women and men take turns."""
    return speaker % 2 == 0


def _speak(clip: TalkerClip, rng: random.Random) -> tuple[NDArray[np.float32], Speech, float]:
    """The sound, a whole number of frames long, the speech in it, and when it begins, in s."""
    own = random.Random(f"voice {clip.seed} {clip.speaker}")
    prosody = prosody_of(clip.voice)
    variants = FEMININE if is_feminine(clip.speaker) else MASCULINE
    variant = variants[clip.speaker // 2 % len(variants)]
    accent = ACCENTS[(clip.speaker + clip.speaker // CAST) % len(ACCENTS)]
    speech = synthesise(
        clip.sentence,
        f"{accent}+{variant}",
        words_per_minute=round(own.uniform(155, 180) * 2**prosody.rate),
        pitch=round(50 + own.uniform(-6, 6) + prosody.pitch),
        pitch_range=round(50 + prosody.pitch_range),
    )
    assert speech.rate == SOUND_RATE
    sound = speech.samples
    sound = sound + np.float32(prosody.brightness) * np.diff(sound, prepend=np.float32(0))
    level = LEVEL * 10 ** (prosody.loudness / 20) / np.sqrt(np.mean(sound**2))
    sound = np.clip(sound * np.float32(level), -0.98, 0.98)
    before, after = rng.randint(1200, 3500), rng.randint(1200, 3500)
    after += -(before + len(sound) + after) % HOP
    return np.pad(sound, (before, after)), speech, before / SOUND_RATE


def mouth_of(
    sound: NDArray[np.float32], speech: Speech, lead: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How open the mouth is in each frame, 0 to 1, and how spread the lips are, -1 to 1.

    The opening is the loudness of the frame, shaped by the phoneme spoken at its centre.
    """
    loud = np.sqrt((sound.reshape(-1, HOP) ** 2).mean(1, dtype=np.float64))
    loud = np.minimum(1.0, loud / np.percentile(loud, 90)) ** 0.7
    starts = [lead + start for start, _ in speech.phonemes]
    centres = (np.arange(len(loud)) + 0.5) / FRAME_RATE
    spoken = np.searchsorted(starts, centres, side="right") - 1
    letters = [name.lstrip("',_:;%=|")[:1] for _, name in speech.phonemes]
    shape = np.array([(OPENNESS.get(x, CONSONANT), SPREAD.get(x, 0.0)) for x in letters])
    opening, spread = np.where(spoken[:, None] >= 0, shape[spoken], 0.0).T
    return loud * opening, np.sqrt(loud) * spread


@lru_cache(maxsize=4)
def _face(seed: int, speaker: int) -> Face:
    return Face(random.Random(f"look {seed} {speaker}"), feminine=is_feminine(speaker))


def _encode(pictures: list[NDArray[np.uint8]], sound: NDArray[np.float32]) -> bytes:
    """An MP4 file without date or version, so that the same clip gives the same bytes."""
    file = io.BytesIO()
    cv2.setNumThreads(1)
    with av.open(file, "w", "mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", FRAME_RATE)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        # With mbtree, x264's bytes differ from run to run, even in one thread.
        video.options = {
            "preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0",
        }  # fmt: skip
        audio = container.add_stream("aac", SOUND_RATE)
        audio.layout = "mono"
        audio.bit_rate = 64_000
        audio.options = {"aac_coder": "fast"}  # else a third of all the time goes into it
        for stream in (video, audio):
            stream.codec_context.flags |= Flags.bitexact
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        wave = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        wave.sample_rate, wave.pts = SOUND_RATE, 0
        container.mux(audio.encode(wave))
        container.mux(audio.encode())
    return file.getvalue()
