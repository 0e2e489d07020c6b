"""What the embedder says of one clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

from mmembed.config import Seconds
from mmembed.errors import UsageError

Array: TypeAlias = Any
"""A numpy array of float32, or a tensor on the CPU where tensors are requested."""

Origin: TypeAlias = Literal["given", "ctc"]
"""Whether the user gave it, or a recogniser found it."""


class Word(NamedTuple):
    """One word of a clip.

    Attributes:
        text: normalised: lower case, no punctuation.
        start: seconds, as it was given, or of the first frame that the recogniser spells it in.
        end: seconds, likewise; behind the last such frame.
        vector: (2 D,) mean and standard deviation of the frames between, as `Embedding.pooled` is
            of all frames; of the nearest frame where the word is shorter than one.
    """

    text: str
    start: Seconds
    end: Seconds
    vector: Array


@dataclass(frozen=True, eq=False)
class Embedding:
    """One clip at every level; T frames, L layers, D the encoder's width.

    Attributes:
        key: the clip's, a portable form of its path unless it was given.
        streams: those that were used; all others were missing to the encoder.
        seconds: of the clip; None with text alone.
        pooled: (2 D,) mean and standard deviation over time of `frames`: the clip as one vector.
        frames: (T, D) fused frames, 25 a second, or at the rate of a pretrained encoder; with text
            alone one a token.
        times: (T,) seconds, the middle of each frame; NaN with text alone.
        layers: (L, 2 D) mean and standard deviation of every layer.
        layer_names: of the L layers, such as "audio 0" (its front end), "text 1", "fused".
        transcript: normalised words, None where they are not known.
        transcript_from: "given", or "ctc" where the clip's own audio and video were transcribed.
        words_from: whence the times of its words: "given", or "ctc" where the recogniser found
            them; None where they are not known.
    """

    key: str
    streams: tuple[str, ...]
    seconds: Seconds | None
    pooled: Array = field(repr=False)
    frames: Array = field(repr=False)
    times: Array = field(repr=False)
    layers: Array = field(repr=False)
    layer_names: tuple[str, ...] = field(repr=False)
    transcript: str | None
    transcript_from: Origin | None
    words_from: Origin | None
    aligned: tuple[Word, ...] | str = field(repr=False)  # words, or why there are none

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of `transcript` at the times given, else where a recogniser finds them.

        Raises:
            UsageError: their times cannot be known; says why and what to do.
        """
        if isinstance(self.aligned, str):
            raise UsageError(f"{unquote(self.key)}: {self.aligned}")
        return self.aligned
