"""The corpus as files: `clips/KEY.mp4`, `manifest.jsonl` and what it was made with."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from mmembed.data.corpora.talkers.clip import MOST_SPEAKERS, TalkerClip, render, write_script
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.errors import UsageError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps

EDITION: Final = 4  # of drawing, voices, words and labels: raise it when any of them changes


def generate(
    out: Path,
    *,
    seed: int = 0,
    speakers: int = 30,
    clips_per_speaker: int = 48,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the corpus, or what is missing of it; `workers` changes nothing but the time it takes.

    Of 30 speakers 20 are train (one clip of eight heldout), 4 dev and 6 test; no sentence of the
    latter three occurs in train.

    Args:
        out: folder to write to.
        seed: of scripts, looks and voices; each clip is a function of (seed, speaker, index).
        speakers: 1 to 180; up to 30 each has a voice of its own, beyond that an accent of one.
        clips_per_speaker: at least 1.
        workers: processes, at least 1.
        on_progress: called with (clips done, clips in all), first with what is there already.

    Returns:
        The path of the manifest.

    Raises:
        UsageError: a number is out of range, or `out` holds another corpus.
    """
    if not 1 <= speakers <= MOST_SPEAKERS:
        raise UsageError(f"{speakers} speakers: there can be 1 to {MOST_SPEAKERS}")
    if clips_per_speaker < 1 or workers < 1:
        raise UsageError("talkers: clips_per_speaker and workers must be at least 1")
    _open_folder(
        out, {"edition": EDITION, "seed": seed, "speakers": speakers, "clips": clips_per_speaker}
    )
    clips = [
        write_script(seed, speaker, index)
        for speaker in range(speakers)
        for index in range(clips_per_speaker)
    ]
    folder = out / "clips"
    folder.mkdir(exist_ok=True)
    done = {path.name for path in folder.glob("*.mp4")}
    missing = [clip for clip in clips if f"{clip.key}.mp4" not in done]
    finished = len(clips) - len(missing)
    if on_progress is not None:
        on_progress(finished, len(clips))
    # Threads of the parent must not be forked, hence fresh processes.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(workers, len(missing))), mp_context=context) as pool:
        for job in as_completed([pool.submit(_produce, clip, folder) for clip in missing]):
            job.result()
            finished += 1
            if on_progress is not None:
                on_progress(finished, len(clips))
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, (clip.utterance for clip in clips))
    return manifest


def _produce(clip: TalkerClip, folder: Path) -> None:
    with atomic_file(folder / f"{clip.key}.mp4") as file:
        file.write(render(clip))


def _open_folder(out: Path, made_with: dict[str, int]) -> None:
    """Take the folder for this corpus.

    Raises:
        UsageError: it holds another one.
    """
    path = out / "talkers.json"
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{name} {there.get(name)} instead of {value}"
            for name, value in made_with.items()
            if there.get(name) != value
        ]
        if changed:
            raise UsageError(
                f"{out}: holds other talkers ({', '.join(changed)}); choose another folder or "
                "the same numbers"
            )
        return
    with atomic_file(path) as file:
        file.write(dumps(made_with, indent=1).encode() + b"\n")
