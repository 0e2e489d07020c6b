"""Members of tar and zip archives, read in memory: nothing is ever unpacked to disk.

The list of members is made in a sandboxed process, since the standard library's parsers can be made
to loop or to fill the memory; the member itself is then read at its offset in the file, which the
standard library's archive classes cannot do without parsing the archive again. Links are not
followed; names that lead out of a folder, and members that expand too much, are refused.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from mmembed.data.untrusted.sandbox import UnsafeFileError, run_sandboxed
from mmembed.errors import DataError

SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".zip")
EXPANSION: Final = 100  # times its packed size that a member may have; text packs to a tenth
SLACK: Final = 2**20  # bytes that anything may have
MOST_MEMBERS: Final = 2_000_000

_ZIP: Final = (b"PK\3\4", b"PK\5\6")
_GZIP: Final = b"\x1f\x8b"
_LOCAL_HEADER: Final = 30  # bytes, before the name and further fields
_ENCRYPTED: Final = 1


class _Member(NamedTuple):
    """Where a member lies: in the tar, once it is unpacked, or its header in the zip."""

    offset: int
    size: int
    packed: int
    method: int = zipfile.ZIP_STORED
    crc: int | None = None
    encrypted: bool = False


def read_member(archive: Path, member: str, limit: int) -> bytes:
    """The bytes of one file in an archive.

    For a member of a `.tar.gz` everything before it is read too, for others the member alone.

    Args:
        archive: a .tar, .tar.gz or .zip file; its first bytes decide.
        member: its name without a leading "./". Of members of one name the last counts.
        limit: bytes; a larger member is refused.

    Raises:
        DataError: with reason "missing", "not_archive", "unsafe" for a name in the archive that
            leads out of a folder, "too_large", "encrypted" or "damaged"; or one of
            `mmembed.data.untrusted.sandbox.run_sandboxed`.
    """
    name = f"{archive}#{member}"
    found = _members(archive).get(member)
    if found is None:
        raise DataError(name, "missing", "no such file in the archive; links are not followed")
    if found.encrypted:
        raise DataError(name, "encrypted", "is encrypted: unpack the archive with its password")
    if found.size > limit:
        raise DataError(name, "too_large", f"has {found.size} bytes, at most {limit} are read")
    if found.size > EXPANSION * found.packed + SLACK:
        raise DataError(
            name,
            "too_large",
            f"unpacks from {found.packed} to {found.size} bytes, more than {EXPANSION} times as "
            "much: unpack the archive yourself if you trust it",
        )
    try:
        if found.crc is not None:
            data = _read_zip(archive, found)
        else:
            with archive.open("rb") as file:
                packed = _head(archive).startswith(_GZIP)
                stream = gzip.GzipFile(fileobj=file) if packed else file
                stream.seek(found.offset)
                data = stream.read(found.size)
    except (EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise DataError(name, "damaged", f"cannot be unpacked ({error})") from None
    if len(data) != found.size or (found.crc is not None and zlib.crc32(data) != found.crc):
        message = f"{len(data)} bytes, or others than the {found.size} packed"
        raise DataError(name, "damaged", message)
    return data


def list_members(archive: Path) -> list[str]:
    """The names of all files in an archive, in its order; for errors see `read_member`."""
    return [*_members(archive)]


def _read_zip(archive: Path, member: _Member) -> bytes:
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise OSError(f"compression method {member.method}; stored and deflated are read")
    with archive.open("rb") as file:
        file.seek(member.offset)
        header = file.read(_LOCAL_HEADER)
        further = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        file.seek(member.offset + _LOCAL_HEADER + further)
        packed = file.read(min(member.packed, member.size + SLACK))
    if member.method == zipfile.ZIP_STORED:
        return packed
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)


def _head(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(4)


def _members(archive: Path) -> Mapping[str, _Member]:
    """All files of an archive by their names; folders, links and devices are left out."""
    if not archive.is_file():
        raise DataError(str(archive), "missing", "no such archive")
    stamp = archive.stat()
    return _indexed(archive, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=16)
def _indexed(archive: Path, _modified: int, _size: int) -> Mapping[str, _Member]:
    """Kept while the archive stays what it is."""
    return {name: _Member(*fields) for name, fields in run_sandboxed(_index, archive).items()}


def _index(path: str) -> dict[str, tuple[object, ...]]:
    """Name -> the fields of `_Member`; runs in the sandbox."""
    archive = Path(path)
    found: dict[str, tuple[object, ...]] = {}
    try:
        members = _in_zip(archive) if _head(archive).startswith(_ZIP) else _in_tar(archive)
        for name, member in members:
            found[_safe(name)] = tuple(member)
            if len(found) > MOST_MEMBERS:
                raise UnsafeFileError(f"more than {MOST_MEMBERS} members", "too_large")
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        message = f"no tar, tar.gz or zip, or a damaged one ({error})"
        raise UnsafeFileError(message, "not_archive") from None
    return found


def _in_zip(archive: Path) -> Iterator[tuple[str, _Member]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir() and (info.external_attr >> 28) in (0, 8):  # no link
                encrypted = bool(info.flag_bits & _ENCRYPTED)
                sizes = info.header_offset, info.file_size, info.compress_size
                yield info.filename, _Member(*sizes, info.compress_type, info.CRC, encrypted)


def _in_tar(archive: Path) -> Iterator[tuple[str, _Member]]:
    whole = archive.stat().st_size
    with archive.open("rb") as raw:
        packed = _head(archive).startswith(_GZIP)
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        limit, end = EXPANSION * whole + SLACK, 0
        bomb = UnsafeFileError(f"unpacks to more than {EXPANSION} times its size", "too_large")
        with tarfile.open(fileobj=stream, mode="r:") as file:
            while (info := file.next()) is not None:
                vars(file)["members"] = []  # they would fill the memory
                if info.size < 0:
                    raise UnsafeFileError(f"a member has {info.size} bytes", "damaged")
                if info.issparse():
                    continue
                end = info.offset_data + info.size
                if packed and end > limit:
                    raise bomb
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    # What is compressed as a whole has no packed size of its own.
                    size = whole if packed else info.size
                    yield info.name, _Member(info.offset_data, info.size, size)
        while packed and stream.read(SLACK):  # the checksum comes last
            if stream.tell() > limit:
                raise bomb
        if not packed and end > whole:
            message = f"the archive is cut short: {whole} of {end} bytes are there"
            raise UnsafeFileError(message, "damaged")


def _safe(name: str) -> str:
    """The name without a leading "./"."""
    path = PurePosixPath(name)
    if (
        not path.name
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or "\0" in name
        or path.parts[0].endswith(":")
    ):
        raise UnsafeFileError(f"a member is called {name!r}, which leads out of the archive")
    return str(path)
