"""Score embeddings by linear probes on unseen speakers.

Example:
    mmembed probe embeddings/ravdess other/ravdess --folds 8

Each folder holds embedding shards with category labels. The command prints the unweighted average
recall of each with a 95 % interval over speakers, and the chance level. If speakers are not known,
folds and interval are over dialogues, else over single clips, and a message says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mmembed.io.json import write_json


@dataclass(frozen=True)
class Probe:
    """What is probed.

    Attributes:
        folders: Folders of embedding shards, or URLs of such folders (s3://bucket/prefix).
        speakers: Use only these speakers; by default all.
        folds: Number of folds of speakers (or dialogues, or clips); each is held out once.
        centre_speakers: First subtract the mean vector of each speaker. This uses no label, but
            needs other clips of the same speaker.
        out: Also write all results to this file, as JSON.
    """

    folders: tyro.conf.Positional[tuple[str, ...]]
    speakers: tuple[str, ...] = ()
    folds: int = 8
    centre_speakers: bool = False
    out: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Probe each folder, print a row for each."""
    settings = tyro.cli(Probe, prog="mmembed probe", args=argv, description=__doc__)
    from mmembed.metrics.bootstrap import plural
    from mmembed.studies.probe import centre_speakers, probe, read_labelled

    results = {}
    print(f"{'embeddings':44} {'UAR':>6} {'95 % interval':>15} {'width':>6} {'time':>6}")
    for folder in settings.folders:
        started = time.monotonic()
        data = read_labelled(folder, settings.speakers)
        if settings.centre_speakers:
            data = centre_speakers(data)
        result = probe(data, folds=settings.folds)
        results[folder] = result
        known = result["low"] is not None
        between = f"{result['low']:7.3f}-{result['high']:.3f}" if known else f"{'-':>7}"
        print(
            f"{folder[-44:]:44} {result['uar']:6.3f} {between:13} {data.vectors.shape[1]:6} "
            f"{time.monotonic() - started:5.0f}s",
            flush=True,
        )
        if result["grouping"] != "speaker":
            print(f"  folds of {plural(result['grouping'])}: not of all clips is the speaker known")
        if result["note"]:
            print(f"  {result['note']}")
    chance = next(iter(results.values()))["chance"]
    print(f"{'chance':44} {chance:6.3f}")
    if settings.out:
        write_json(settings.out, results)
