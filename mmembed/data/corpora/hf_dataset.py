"""A folder that `save_to_disk` of the library Hugging Face datasets wrote, read without it.

    dataset_dict.json          {"splits": ["train", "test"]}, only of several splits
    train/state.json           {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], ...}
    train/dataset_info.json    {"features": {"audio": {"_type": "Audio"}, ...}, "license": ...}
    train/data-00000-of-00001.arrow    an Arrow IPC stream

Media columns (`Audio`, `Video`) are structs of the bytes of a file and its path. Bytes go into
OUT/media.tar, a webdataset tar with a member `KEY.SUFFIX` a row; without bytes the path is
the media. Source of the layout: what release 5.2 of the library writes.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mmembed.data.corpora.emotion_names import category
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import parse_json

MEDIA: Final = ("Audio", "Video")
TRANSCRIPT: Final = ("transcript", "transcription", "text", "sentence", "raw_text")
SPEAKER: Final = ("speaker_id", "speaker", "client_id", "spk_id")
CATEGORY: Final = ("emotion", "label", "major_emotion")
LANGUAGE: Final = ("language", "locale", "lang")
"""Columns by their meaning; of several the first that exists."""

SPLITS: Final = {"train": "train", "validation": "dev", "dev": "dev", "test": "test"}
TAR: Final = "media.tar"

_LANGUAGE: Final = re.compile(r"([a-z]{2})(?:[-_].*)?")

Put = Callable[[str, bytes], None]


def convert(source: Path, out: Path) -> list[Utterance]:
    """Hugging Face datasets: a folder that save_to_disk wrote.

    Uses the first media column, and words, speaker, language and emotion by the names of their
    columns; class labels by their names. Splits whose name starts with train, validation or test
    are these splits; the rows of others have no split. Media paths are relative to `out`.

    Args:
        source: the folder.
        out: where `media.tar` goes, whole or not at all; the same rows give the same bytes.

    Raises:
        DataError: the folder is not of this layout, a file of it is damaged, or it has neither
            media nor words.
    """
    described = source / "dataset_dict.json"
    names = _field(described, "splits", list) if described.is_file() else [""]
    folders = [_inside(source, name) for name in names]
    rows: list[Utterance] = []
    with atomic_file(out / TAR) as file, tarfile.open(fileobj=file, mode="w|") as tar:

        def put(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)  # its time and owner are 0: equal rows, equal bytes
            info.size = len(data)
            tar.addfile(info, BytesIO(data))

        for name, folder in zip(names, folders, strict=True):
            rows += _split(source.resolve().name, name, folder, put)
    if not any(row.media and row.media.startswith(f"{TAR}#") for row in rows):
        (out / TAR).unlink()
    return rows


def _split(corpus: str, name: str, folder: Path, put: Put) -> Iterator[Utterance]:
    """The rows of one split, in its order."""
    features = _field(folder / "dataset_info.json", "features", dict)
    licence = _json(folder / "dataset_info.json").get("license")
    if _json(folder / "state.json").get("_indices_data_files"):
        raise DataError(str(folder), "layout", "is a selection; save flatten_indices() of it")
    media = next((c for c, kind in features.items() if _type(kind) in MEDIA), None)
    words, speaker, emotion, language = (
        next((column for column in columns if column in features), None)
        for columns in (TRANSCRIPT, SPEAKER, CATEGORY, LANGUAGE)
    )
    if media is None and words is None:
        message = f"has no column of type {' or '.join(MEDIA)} and none of {', '.join(TRANSCRIPT)}"
        raise DataError(str(folder), "layout", f"{message}; has {', '.join(features)}")
    streams = {"Audio": ("audio",), "Video": None, "": ()}[_type(features.get(media))]
    columns = [c for c in (media, words, speaker, emotion, language) if c is not None]
    split = next((SPLITS[s] for s in SPLITS if re.fullmatch(rf"{s}(\W.*)?", name)), None)
    for number, row in enumerate(_rows(folder, columns)):
        key = portable_key("-".join(filter(None, (corpus, name, f"{number:08d}"))))
        spoken = str(row[words]) if words and row[words] else None
        person = row[speaker] if speaker else None
        code = _LANGUAGE.fullmatch(str(row[language]).lower()) if language else None
        yield Utterance(
            key=key,
            media=_media(folder, key, row[media], put) if media else None,
            transcript=spoken,
            language=code[1] if code else None,
            streams=streams if streams is None else (*streams, *(("text",) if spoken else ())),
            speaker=None if person in (None, "") else f"{corpus}-{person}",
            split=split,
            licence=licence if licence and isinstance(licence, str) else None,
            labels=Labels(category=_category(features[emotion], row[emotion]) if emotion else None),
        )


def _rows(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of all data files; one at a time is in memory."""
    import pyarrow as pa  # takes a while

    for file in _field(folder / "state.json", "_data_files", list):
        path = _inside(folder, file.get("filename") if isinstance(file, dict) else file)
        try:
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
                for batch in stream:
                    batch.validate(full=True)
                    chosen = batch.select(columns)
                    for row in range(len(chosen)):  # a batch may hold a thousand recordings
                        yield chosen.slice(row, 1).to_pylist()[0]
        except FileNotFoundError:
            raise DataError(str(path), "missing", "state.json names it, it is not there") from None
        except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            message = " ".join(str(error).split())[:80]
            raise DataError(str(path), "damaged", f"cannot be read ({message})") from None


def _media(folder: Path, key: str, value: Any, put: Put) -> str | None:
    """The reference to a media cell: a member of the tar, or an absolute path."""
    if value is None:
        return None
    cell = value if isinstance(value, dict) else {"path": value}
    path, data = cell.get("path"), cell.get("bytes")
    if not isinstance(path, str | None) or not isinstance(data, bytes | None):
        raise DataError(f"{folder}: {key}", "layout", "media must be bytes with a path, or a path")
    if data is None:
        return str((folder / path).absolute()) if path else None
    suffix = PurePosixPath(path or "").suffix.lower()
    member = key + (suffix if re.fullmatch(r"\.\w+", suffix, re.ASCII) else "")
    put(member, data)
    return f"{TAR}#{member}"


def _category(feature: Any, value: Any) -> str | None:
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(value, int) and names and 0 <= value < len(names):
        return category(names[value])
    return category(value) if isinstance(value, str) else None  # a number without a name is none


def _type(feature: Any) -> str:
    kind = feature.get("_type") if isinstance(feature, Mapping) else None
    return kind if kind in MEDIA else ""


def _inside(folder: Path, name: object) -> Path:
    """A file or folder that a description names: right there, nowhere else."""
    if not isinstance(name, str) or name == ".." or re.search(r"[/\\\0]", name):
        raise DataError(str(folder), "layout", f"names {name!r}, which is not a name")
    return folder / name


def _field(path: Path, name: str, kind: type) -> Any:
    value = _json(path).get(name)
    if not isinstance(value, kind):
        raise DataError(str(path), "damaged", f"must hold {name!r}, a JSON {kind.__name__}")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            str(path.parent),
            "missing",
            f"holds no file of a saved dataset, such as train/{path.name}; name the folder that "
            "was given to save_to_disk",
        ) from None
    except ValueError:
        raise DataError(str(path), "damaged", "is not JSON") from None
    if not isinstance(value, dict):
        raise DataError(str(path), "damaged", "must be a JSON object")
    return value
