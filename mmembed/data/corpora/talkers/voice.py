"""Voices: espeak-ng in this process, through its C library.

Interface: espeak-ng's `speak_lib.h` and `espeak_ng.h` (espeak-ng 1.52).
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

AUDIO_OUTPUT_SYNCHRONOUS: Final = 2
PHONEME_EVENTS: Final = 1
EVENT_END_OF_LIST: Final = 0
EVENT_PHONEME: Final = 7
CHARS_UTF8: Final = 1
RATE, VOLUME, PITCH, RANGE, WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Speech:
    """Synthesised sound and when each phoneme starts.

    Attributes:
        samples: (N,) float32 in [-1, 1].
        rate: Hz.
        phonemes: (seconds, espeak phoneme name), in order; "" and "_" are pauses.
    """

    samples: NDArray[np.float32]
    rate: int
    phonemes: tuple[tuple[float, str], ...]


def synthesise(
    text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int
) -> Speech:
    """Speak `text`.

    Args:
        text: words of the voice's language.
        voice: a language and a variant, "en-us+f3".
        words_per_minute: espeak-ng's rate, 80 to 450.
        pitch: 0 to 100, 50 is the voice's own.
        pitch_range: 0 (monotone) to 100, 50 is the voice's own.
    """
    settings = {RATE: words_per_minute, VOLUME: 100, PITCH: pitch, RANGE: pitch_range, WORD_GAP: 0}
    data = text.encode()
    sound: list[NDArray[np.int16]] = []
    phonemes: list[tuple[float, str]] = []

    def receive(wave, count, events) -> int:  # type: ignore[no-untyped-def]
        if wave and count:
            sound.append(np.ctypeslib.as_array(wave, (count,)).copy())
        for event in events:
            if event.type == EVENT_END_OF_LIST:
                break
            if event.type == EVENT_PHONEME:
                name = event.id.decode(errors="replace")
                phonemes.append((event.audio_position / 1000, name))
        return 0

    with _espeak() as (library, rate):
        callback = _Callback(receive)  # named, for the library holds only its address
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in settings.items():
            library.espeak_SetParameter(parameter, value, 0)
        status = library.espeak_Synth(data, len(data) + 1, 0, 1, 0, CHARS_UTF8, None, None)
    if status != 0 or not sound:
        raise RuntimeError(f"espeak-ng could not speak {text!r} as {voice} (status {status})")
    samples = np.concatenate(sound).astype(np.float32) / np.float32(32768)
    return Speech(samples, rate, tuple(phonemes))


@contextmanager
def _espeak() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library in its very first state, and its sampling rate in Hz.

    Flutter, echo and wave phase go on from one utterance to the next in variables that no call
    resets, not even terminating and initialising again. Only unloading the library does, so it is
    loaded for every utterance (4 ms). Its noise comes from C's `rand` and from a generator of its
    own that initialisation seeds with the clock.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        folder = str(espeakng_loader.get_data_path()).encode()
        rate = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, folder, PHONEME_EVENTS)
        if rate <= 0:
            raise RuntimeError(f"espeak-ng could not start with the data in {folder.decode()}")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        yield library, int(rate)
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)
