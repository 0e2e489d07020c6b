"""CMU ARCTIC: English sentences from novels, every speaker reads the same ones.

Published as one archive a speaker, `cmu_us_bdl_arctic/wav/arctic_a0001.wav` with the prompts in
`etc/txt.done.data`. Source: Kominek and Black, "The CMU Arctic speech databases", SSW5 2004,
festvox.org/cmu_arctic; its licence (COPYING) lets anyone do anything with it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media, nearest_folder, read_text
from mmembed.data.corpora.tables import read_table
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

ARCHIVE: Final = r"cmu_us_([a-z]+)_arctic.*"
PROMPT_FILES: Final = ("txt.done.data", "cmuarctic.data")
INDEX: Final = "index.csv"
ANYONE: Final = ""
LICENCE: Final = "free for any use"


def read(root: Path) -> list[Utterance]:
    """CMU ARCTIC: read English sentences.

    Prompts come from `txt.done.data` or `cmuarctic.data` anywhere below the root, else from an
    `index.csv` with the columns path, prompt_id and transcript.

    Raises:
        DataError: no audio files, or one without prompt.
    """
    name = r"(?P<prompt>arctic_[ab](?P<number>\d{4}))" + SOUND
    found = list(find_media(root, name, "CMU ARCTIC", "cmu_us_bdl_arctic/wav/arctic_a0001.wav"))
    prompts = _prompts(root)
    utterances = []
    for path, match in found:
        speaker, prompt = _speaker(root, path), match["prompt"]
        transcript = prompts.get((speaker, prompt)) or prompts.get((ANYONE, prompt))
        if transcript is None:
            message = f"no prompt {prompt} in {' or '.join(PROMPT_FILES)} below {root}"
            raise DataError(str(root / path), "transcript", message)
        utterances.append(
            Utterance(
                key=f"arctic-{speaker}-{prompt.removeprefix('arctic_')}",
                media=path.as_posix(),
                transcript=transcript,
                language="en",
                streams=("audio", "text"),
                speaker=f"arctic-{speaker}",
                # By prompt, for all speakers: no reading of a held-out sentence is in train.
                split={0: "heldout", 5: "dev"}.get(int(match["number"]) % 10, "train"),
                licence=LICENCE,
            )
        )
    return utterances


def _speaker(root: Path, path: Path) -> str:
    if archive := nearest_folder(root, path, ARCHIVE):
        return archive[1]
    return (root / path).resolve().parent.name


def _prompts(root: Path) -> dict[tuple[str, str], str]:
    """(speaker, prompt) -> sentence: some speakers read a few words otherwise than printed."""
    line = re.compile(r'\(\s*(arctic_[ab]\d{4})\s+"(.*)"\s*\)')
    prompts: dict[tuple[str, str], str] = {}
    files = files_below(root, *{Path(name).suffix for name in (*PROMPT_FILES, INDEX)})
    for path in (path for name in PROMPT_FILES for path in files if path.name == name):
        archive = nearest_folder(root, path.relative_to(root), ARCHIVE)
        speaker = archive[1] if archive else ANYONE
        for prompt, sentence in line.findall(read_text(path) or ""):
            prompts[speaker, prompt] = sentence
    if not prompts:
        for path in (path for path in files if path.name == INDEX):
            for _, row in read_table(path, ("path", "prompt_id", "transcript")):
                speaker = _speaker(path.parent, Path(row["path"]))
                prompts[speaker, row["prompt_id"]] = row["transcript"]
    return prompts
