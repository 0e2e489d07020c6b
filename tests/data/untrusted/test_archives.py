"""Archives: members are read in memory; bombs, links and names that lead out are refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from mmembed.data.untrusted.archives import SLACK, _members, read_member
from mmembed.data.untrusted.sandbox import UnsafeFileError
from mmembed.errors import DataError

NOISE = np.random.default_rng(0).bytes(5000)
FILES = {"a.mp4": NOISE, "folder/b.wav": b"words " * 400, "empty.txt": b""}


def make(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """An archive of the kind that the suffix says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_members_come_back(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"x.{suffix}")
    assert list(_members(path)) == list(FILES)
    for name, data in FILES.items():
        assert read_member(path, name, 5000) == data
    with pytest.raises(DataError, match="has 5000 bytes, at most 4999") as error:
        read_member(path, "a.mp4", 4999)
    assert error.value.reason == "too_large" and error.value.item == f"{path}#a.mp4"
    with pytest.raises(DataError, match="no such file"):
        read_member(path, "b.mp4", 5000)
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_that_changes_is_read_anew(tmp_path: Path) -> None:
    make(tmp_path / "x.tar", {"a": b"1"})
    assert read_member(tmp_path / "x.tar", "a", 9) == b"1"
    make(tmp_path / "x.tar", {"b": b"2" * 20_000, "a": b"3"})
    assert read_member(tmp_path / "x.tar", "a", 9) == b"3"


def test_long_names_and_leading_dots(tmp_path: Path) -> None:
    long = "/".join(["folder"] * 50) + "/\u00e9.mp4"
    for suffix in ("zip", "tar"):
        path = make(tmp_path / f"x.{suffix}", {long: b"1", "./a.mp4": b"2"})
        assert list(_members(path)) == [long, "a.mp4"]
        assert read_member(path, long, 9) == b"1" and read_member(path, "a.mp4", 9) == b"2"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "..", "C:/a", "a\\..\\b"])
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_names_that_lead_out(tmp_path: Path, name: str, suffix: str) -> None:
    from mmembed.data.untrusted.archives import _index

    path = make(tmp_path / f"x.{suffix}", {"a.mp4": b"1", name: b"2"})
    with pytest.raises(UnsafeFileError, match="leads out of the archive"):
        _index(str(path))


def test_links_devices_and_sparse_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for name, kind in (
            ("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE),
            ("device", tarfile.CHRTYPE), ("folder", tarfile.DIRTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret")
            file.addfile(info)
        sparse = tarfile.TarInfo("sparse")
        sparse.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40),
            "GNU.sparse.name": "sparse",
        }  # fmt: skip
        sparse.size = 512
        file.addfile(sparse, io.BytesIO(f"1\n{2**40}\n0\n".encode().ljust(512, b"\0")))
    assert list(_members(tmp_path / "x.tar")) == []
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        link = zipfile.ZipInfo("soft")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, str(tmp_path / "secret"))
    assert list(_members(tmp_path / "x.zip")) == []
    for name in ("x.tar", "x.zip"):
        with pytest.raises(DataError, match="links are not followed"):
            read_member(tmp_path / name, "soft", 100)


def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(64 * SLACK)
    for suffix in ("zip", "tar.gz"):
        path = make(tmp_path / f"x.{suffix}", {"zeros": zeros})
        assert path.stat().st_size < SLACK
        with pytest.raises(DataError, match="100 times") as error:
            read_member(path, "zeros", len(zeros))
        assert error.value.reason == "too_large"
    path.write_bytes(gzip.compress(bytes(10_240) + zeros, 1))  # after the end of the archive
    with pytest.raises(DataError, match="100 times"):
        list(_members(path))
    # A size that is declared small does not let more through.
    data = (tmp_path / "x.zip").read_bytes()
    declared = len(zeros).to_bytes(4, "little")
    assert data.count(declared) == 2
    (tmp_path / "y.zip").write_bytes(data.replace(declared, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="1001 bytes, or others") as error:
        read_member(tmp_path / "y.zip", "zeros", 1000)
    assert error.value.reason == "damaged"


def test_a_header_that_fills_the_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 3 * 2**30
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(2**20))
    with pytest.raises(DataError) as error:
        list(_members(tmp_path / "x.tar.gz"))
    assert error.value.reason in ("too_large", "not_archive")


def test_a_size_below_zero(tmp_path: Path) -> None:
    """A parser that goes on from there goes round for ever."""
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + (-1024 % 2**16).to_bytes(2, "big")
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    (tmp_path / "x.tar").write_bytes(header + bytes(10_240))
    with pytest.raises(DataError) as error:
        list(_members(tmp_path / "x.tar"))
    assert error.value.reason in ("damaged", "not_archive")


def test_encrypted_members(tmp_path: Path) -> None:
    data = make(tmp_path / "x.zip", {"a": b"1", "b": b"2"}).read_bytes()
    central = data.index(b"PK\1\2")
    flags = central + 8
    (tmp_path / "y.zip").write_bytes(data[:flags] + b"\1" + data[flags + 1 :])
    with pytest.raises(DataError, match="is encrypted") as error:
        read_member(tmp_path / "y.zip", "a", 9)
    assert error.value.reason == "encrypted"
    assert read_member(tmp_path / "y.zip", "b", 9) == b"2"


def test_other_compression_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a", b"1" * 100)
    with pytest.raises(DataError, match="compression method 14; stored and deflated"):
        read_member(tmp_path / "x.zip", "a", 100)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_damage_is_told(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"x.{suffix}", {"a": NOISE, "b": NOISE[::-1]})
    data = path.read_bytes()
    path.with_name(f"cut.{suffix}").write_bytes(data[: 512 + 5000 + 2000])
    with pytest.raises(DataError) as error:
        read_member(path.with_name(f"cut.{suffix}"), "b", 9999)
    assert error.value.reason in ("damaged", "not_archive")
    if suffix != "tar":  # a tar has no checksum of what it holds
        changed = bytearray(data)
        changed[2000] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DataError) as error:
            read_member(path, "a", 9999)
        assert error.value.reason in ("damaged", "not_archive")


@pytest.mark.parametrize(
    "data", [b"", b"RIFF....WAVE", b"PK\3\4 and nothing", zlib.compress(NOISE)]
)
def test_other_files_are_no_archives(tmp_path: Path, data: bytes) -> None:
    from mmembed.data.untrusted.archives import _index

    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnsafeFileError) as error:
        _index(str(tmp_path / "x"))
    assert error.value.reason == "not_archive"


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such archive"):
        list(_members(tmp_path / "x.zip"))


@pytest.mark.parametrize("place", [2**64 - 1, 2**63, 2**62, 50])
def test_a_place_beyond_the_archive(tmp_path: Path, place: int) -> None:
    """As a zip of more than 4 GB tells where a member stands, in a further field of 64 bits."""
    path = make(tmp_path / "a.zip", {"a.wav": b"x" * 100})
    data = bytearray(path.read_bytes())
    entry, further = data.rindex(b"PK\1\2"), struct.pack("<HHQ", 1, 8, place)
    struct.pack_into("<I", data, entry + 42, 2**32 - 1)
    struct.pack_into("<H", data, entry + 30, len(further))
    name = struct.unpack_from("<H", data, entry + 28)[0]
    data[entry + 46 + name : entry + 46 + name] = further
    end = data.rindex(b"PK\5\6") + 12
    struct.pack_into("<I", data, end, struct.unpack_from("<I", data, end)[0] + len(further))
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read_member(path, "a.wav", 1000)
    assert error.value.reason == "damaged"
