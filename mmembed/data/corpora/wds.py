"""Shards in the format of WebDataset that others wrote (video2dataset, img2dataset, datasets).

    mmembed prepare wds 'path/shard-{000..099}.tar' --out data/mine

A sample is the members of one tar that have the same name up to the first dot:

    KEY.mp4 .mkv .webm ...    the clip (`mmembed.data.folders.MEDIA_SUFFIXES`)
    KEY.wav .flac .mp3 ...    the clip where there is no video; else passed over
    KEY.txt                   the words spoken in it
    KEY.json                  fields of a manifest: transcript (or text), speaker, language,
                              dialogue, turn, split, start, end, licence; label or category; other
                              fields are passed over
    KEY.cls                   the category

Names are split and lists of tars expanded as the library webdataset does it; nothing is decoded by
it. Members are read where they lie, nothing is unpacked to disk. A tar whose folder or name begins
with a split (train, val, test) is of that split, unless a sample says otherwise.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mmembed.data.corpora.emotion_names import category
from mmembed.data.corpora.files import SPLIT_NAMES
from mmembed.data.folders import PICTURE_SUFFIXES, SOUND_SUFFIXES
from mmembed.data.manifest.utterance import Utterance, from_row, portable_key
from mmembed.data.untrusted.archives import list_members, read_member
from mmembed.errors import DataError, UsageError
from mmembed.io.json import parse_json

SUFFIX: Final = ".tar"
SMALL: Final = 1 << 24  # bytes of a text or a JSON
FIELDS: Final = (
    "transcript", "speaker", "language", "dialogue", "turn", "split", "start", "end", "licence",
)  # fmt: skip


def read(source: Path) -> list[Utterance]:
    """Tars in the format of WebDataset: one, a folder of them, or 'path/shard-{000..099}.tar'.

    Raises:
        DataError: a tar is missing or damaged, a sample cannot be understood, or two have one key.
        UsageError: the pattern is none.
    """
    rows: dict[str, Utterance] = {}
    for tar in tars_of(source):
        for row in _samples(tar):
            if row.key in rows:
                message = f"another sample has its key, in {rows[row.key].media}"
                raise DataError(str(row.media), "repeated", message)
            rows[row.key] = row
    if not rows:
        raise DataError(str(source), "empty", "holds no sample with media, such as KEY.mp4")
    return [*rows.values()]


def tars_of(source: Path) -> list[Path]:
    """The tars that are meant, which need not be there."""
    if source.is_dir():
        found = sorted(source.glob(f"*{SUFFIX}"))
        if not found:
            message = "holds no file of WebDataset, such as clips/shard-000000.tar"
            raise DataError(str(source), "empty", message)
        return found
    if source.suffix != SUFFIX:
        raise DataError(str(source), "missing", f"no such folder, and no name of a *{SUFFIX}")
    from webdataset.shardlists import expand_urls  # imports torch

    try:
        return [Path(name) for name in expand_urls(str(source))]
    except (ValueError, KeyError) as error:
        raise UsageError(f"{source}: no pattern of file names ({error})") from None


def _samples(tar: Path) -> Iterator[Utterance]:
    """The samples of a tar that have media, in its order."""
    from webdataset.tariterators import base_plus_ext

    samples = defaultdict[str, dict[str, str]](dict)  # key -> extension -> member
    for member in list_members(tar):
        key, extension = base_plus_ext(member)
        if key is not None and not PurePosixPath(member).name.startswith("."):
            samples[key][extension.lower()] = member
    for key, members in samples.items():
        media = next((m for e, m in members.items() if f".{e}" in PICTURE_SUFFIXES), None)
        media = media or next((m for e, m in members.items() if f".{e}" in SOUND_SUFFIXES), None)
        if media is not None:
            yield _utterance(tar, key, media, members)


def _utterance(tar: Path, key: str, media: str, members: Mapping[str, str]) -> Utterance:
    def text(extension: str) -> str | None:
        if extension not in members:
            return None
        content = read_member(tar, members[extension], SMALL)
        return content.decode("utf-8", "replace").strip() or None

    where = f"{tar}#{media}"
    row: dict[str, Any] = {"key": portable_key(key), "split": _split(tar)}
    try:
        if (described := text("json")) is not None:
            fields = parse_json(described)
            if not isinstance(fields, Mapping):
                raise ValueError("its JSON is no object")
            fields = {"transcript": fields.get("text"), **fields}
            row |= {n: fields[n] for n in FIELDS if fields.get(n) not in (None, "")}
            label = fields.get("category", fields.get("label"))
            row["labels"] = {} if label in (None, "") else {"category": category(str(label))}
        if row["split"] is not None:
            row["split"] = SPLIT_NAMES.get(str(row["split"]).lower(), row["split"])
        if (words := text("txt")) is not None:
            row["transcript"] = words
        if (label := text("cls")) is not None:
            row["labels"] = {"category": category(label)}
        held = {name: value for name, value in row.items() if value is not None}
        return from_row({**held, "media": f"{tar.absolute()}#{media}"})
    except ValueError as error:
        raise DataError(where, "corpus", str(error)) from None


def _split(tar: Path) -> str | None:
    """As the name of a tar, or of its folder, begins."""
    for name in (tar.stem, tar.parent.name):
        if (word := re.match("[a-z]+", name.lower())) and word[0] in SPLIT_NAMES:
            return SPLIT_NAMES[word[0]]
    return None
