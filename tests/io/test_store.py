"""Objects that are put under conditions, in a real store that now and then does not answer."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from helpers.stores import Faulty, faulty, object_store

from mmembed.errors import DataError, UsageError
from mmembed.io import remote
from mmembed.io.store import Store, staging_folder

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Faulty]:
    with object_store() as env, faulty(env["AWS_ENDPOINT_URL"]) as server:
        yield server


@pytest.fixture
def store(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A new one, without waiting."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore itself
    yield Store(f"s3://bucket/deep/{next(_numbers)}")
    server.faults.clear()


def test_objects_are_put_under_conditions(store: Store, tmp_path: Path) -> None:
    assert store.list() == {} and store.info("a") is None and store.get("a") is None
    etag = store.put_new("a", b"first", index="one")
    assert etag and store.put_new("a", b"second", index="two") is None
    assert store.get("a") == b"first"
    assert store.info("a") == (5, etag, {"index": "one"})
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    assert store.replace("a", '"another"', file) is None
    assert store.replace("gone", etag, file) is None
    assert store.get("a") == b"first"
    newer = store.replace("a", etag, file, index="three")
    assert newer and store.get("a") == file.read_bytes()
    assert store.info("a") == (3_000_000, newer, {"index": "three"})
    store.put("a", b"")
    store.put("b/c", b"not of this folder")
    assert {name: found.size for name, found in store.list().items()} == {"a": 0}
    store.delete("a")
    store.delete("a")
    assert store.list() == {}
    with pytest.raises(FileNotFoundError):
        store.put("a", tmp_path / "nothing")


def test_a_list_has_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"object-{n}" for n in range(5)]
    for name in names:
        store.put(name, b"")
    ask, pages = Store._ask, 0

    def small_pages(self: Store, *arguments: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        return ask(self, *arguments, **options, MaxKeys=2)

    monkeypatch.setattr(Store, "_ask", small_pages)
    assert list(store.list()) == names and pages == 3


@pytest.mark.parametrize("faults", [["503", "503"], ["dropped", "503"], ["lost"], ["lost", "lost"]])
def test_passing_faults_are_overcome(
    store: Store, server: Faulty, faults: list[str], tmp_path: Path
) -> None:
    """Each attempt sends the whole file; where an answer is lost, the object is there."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(500_000))
    server.faults = list(faults)
    assert (store.put_new("a", file) is None) == ("lost" in faults)
    assert server.faults == [] and store.get("a") == file.read_bytes()


def test_lasting_faults_are_told(store: Store, server: Faulty) -> None:
    server.faults = ["503"] * 3
    with pytest.raises(OSError, match=rf"^{store.name}/a: .*; the same command again") as caught:
        store.put_new("a", b"")
    assert "\n" not in str(caught.value) and caught.value.errno is None
    server.faults = ["403"]
    with pytest.raises(DataError, match=rf"^{store.name}/a: the server refuses it"):
        store.put("a", b"")
    assert store.list() == {} and server.faults == []


def test_what_is_not_there_or_not_allowed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^s3://no-such-bucket/x: there is no such .*bucket"):
        Store("s3://no-such-bucket/x").list()
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            patch.setenv(name, os.devnull)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with pytest.raises(UsageError, match="no credentials; set AWS_ACCESS_KEY_ID"):
            Store("s3://bucket/x").list()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UsageError, match=r"needs pip install 'mmembed\[remote\]'"):
        Store("s3://bucket/x").list()


def test_staging_folders_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of killed processes; those of living ones stay."""
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path))
    with staging_folder() as mine:
        (mine / "shard.tar").write_bytes(b"a tar")
        left = mine.with_name("left")
        left.mkdir()
        (left / "shard.tar").write_bytes(b"a tar")
        with staging_folder() as other:
            assert mine.is_dir() and other.is_dir() and not left.exists()
        with pytest.raises(ZeroDivisionError), staging_folder() as other:
            (other / "run.json").write_bytes(b"{}")
            raise ZeroDivisionError
        assert not other.exists()
    assert os.listdir(tmp_path / ".staging") == [".lock"]
