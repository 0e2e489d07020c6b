"""Loading without a process."""

from __future__ import annotations

from pathlib import Path

from mmembed.data.example import LONGEST, Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource
from mmembed.streams import STREAMS


def load_example(
    row: Utterance, folder: Path, streams: tuple[str, ...] = STREAMS, longest: float = LONGEST
) -> Example:
    """A manifest row, decoded here."""
    return MediaSource(row, folder, streams, longest=longest).load()
