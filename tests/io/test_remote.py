"""Shards behind URLs: a real object store on this machine, and servers that fail in known ways."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from helpers.loading import load_example
from helpers.whole import check_whole
from moto.server import ThreadedMotoServer

import mmembed.io.remote as remote
from mmembed.data.example import Example, ExampleInfo
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource, ProbeResult, probe
from mmembed.data.media.pool import Decoder
from mmembed.data.shards.layout import (
    Record,
    ShardSet,
    finish,
    index_shards,
    shard_path,
    write_shard,
)
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.io.remote import as_url

SHARDS, PER_SHARD = 3, 4


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and no waiting."""
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    for number in range(SHARDS):
        made = [record(number * PER_SHARD + row) for row in range(PER_SHARD)]
        write_shard(shard_path(folder, number), made, {})
    finish(folder, streams=["audio"])
    return folder


def record(number: int) -> Record:
    values = np.random.default_rng(number).standard_normal((50, 80))
    return Record(f"clip-{number}", {"values.npy": values, "json": {"n": number}}, {"split": "dev"})


def check(shards: ShardSet, *indices: int) -> None:
    for index in indices or range(SHARDS * PER_SHARD):
        read, true = shards.read(index), record(index)
        assert (read.key, read.meta, read.members["json"]) == (true.key, true.meta, {"n": index})
        np.testing.assert_array_equal(read.members["values.npy"], true.members["values.npy"])


def tars(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.tar"))


# An object store.


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that holds the shards below corpora/one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files = fsspec.filesystem("s3", use_listings_cache=False)
    name = f"bucket-{abs(hash(folder))}"
    files.mkdir(name)
    for path in folder.iterdir():
        files.put_file(str(path), f"{name}/corpora/one/{path.name}")
    return f"s3://{name}/corpora/one"


def test_object_store(bucket: str, folder: Path, settings: Path) -> None:
    shards = ShardSet(bucket)
    assert len(shards) == SHARDS * PER_SHARD
    assert shards.manifest == {"streams": ["audio"]}
    assert shards.texts("split").to_pylist() == ["dev"] * len(shards)
    assert tars(settings) == []  # nothing is fetched before it is needed
    check(shards, 5)
    assert [path.read_bytes() for path in tars(settings)] == [shard_path(folder, 1).read_bytes()]
    check(shards)
    assert len(tars(settings)) == SHARDS
    check_whole(shards)
    assert len(ShardSet(Path(bucket))) == len(shards)  # a Path loses one slash of a URL


def test_object_store_in_other_processes(bucket: str) -> None:
    shards = ShardSet(bucket)
    check(shards, 0)
    if (child := os.fork()) == 0:
        try:
            check(shards, 4, 0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    check(pickle.loads(pickle.dumps(shards)), 8)


def test_object_store_with_an_index(bucket: str, folder: Path, settings: Path) -> None:
    index_shards(folder)
    files = fsspec.filesystem("s3", use_listings_cache=False)
    target = bucket.removeprefix("s3://")
    files.put_file(str(folder / "index.arrow"), f"{target}/index.arrow")
    for shards in (ShardSet(bucket), ShardSet(bucket)):
        assert shards._index._batches[0].checksums is not None
        check(shards)
    assert len(list(settings.glob("*.arrow"))) == 1
    files.rm(f"{target}/shard-000002.json")  # other shards: the index is not theirs
    assert len(ShardSet(bucket)) == 2 * PER_SHARD


@pytest.mark.slow
def test_object_store_refuses(bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^s3://no-such-bucket/x: there is no such .* bucket"):
        ShardSet("s3://no-such-bucket/x")
    with pytest.raises(DataError, match=r"^s3://bucket-.*/corpora/two: there is no such"):
        ShardSet(bucket.replace("one", "two"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UsageError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        ShardSet(bucket)


def test_an_object_that_is_not_what_its_index_says(bucket: str, settings: Path) -> None:
    files = fsspec.filesystem("s3", use_listings_cache=False)
    path = bucket.removeprefix("s3://") + "/shard-000001.tar"
    whole = files.cat_file(path)
    shards = ShardSet(bucket)
    files.pipe_file(path, whole[:1000] + b"?" + whole[1001:])
    with pytest.raises(CorruptError, match=r"shard-000001\.tar: damaged: its SHA-256"):
        shards.read(PER_SHARD)
    files.pipe_file(path, whole[:-512])
    with pytest.raises(CorruptError, match=r"tar: damaged: \d+ bytes came, \d+ were written"):
        shards.read(PER_SHARD)
    with pytest.raises(CorruptError, match=r"shard-000001\.tar: damaged: .* were written"):
        ShardSet(bucket)
    assert list(settings.glob("*.part")) == tars(settings) == []
    check(shards, 0)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UsageError, match=r"needs pip install 'mmembed\[remote\]'"):
        ShardSet("s3://bucket/folder")


# Servers with faults.


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        faults: what befalls the next requests of tars, in order.
        asked: paths of all tars asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        if not self.path.endswith(".tar"):
            return super().do_GET()
        self.server.asked.append(self.path)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdecimal():
            return self.send_error(int(fault))
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) // (2 if fault == "truncated" else 1)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault else data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "faults", [[], ["503", "503"], ["dropped", "dropped"], ["truncated"], ["429", "dropped"]]
)
def test_passing_faults_are_overcome(server: Server, faults: list[str], settings: Path) -> None:
    server.faults = list(faults)
    shards = ShardSet(server.url)
    check(shards, 1, 2, 3)
    assert server.asked == ["/shard-000000.tar"] * (1 + len(faults))
    assert len(list(settings.glob("[!.]*"))) == 1


@pytest.mark.parametrize(
    ("faults", "kind", "message"),
    [
        (["503"] * 3, DataError, "ClientResponseError: 503"),
        (["dropped"] * 3, DataError, "ClientPayloadError"),
        (["truncated"] * 3, CorruptError, r"damaged: \d+ bytes came, \d+ were written"),
        (["403"], DataError, "the server refuses it"),
        (["404"], DataError, "there is no such file"),
    ],
)
def test_lasting_faults_are_told(
    server: Server, faults: list[str], kind: type[Exception], message: str, settings: Path
) -> None:
    shards = ShardSet(server.url)
    server.faults = list(faults) * 2  # a damaged copy is fetched once more
    with pytest.raises(kind, match=rf"^{server.url}/shard-000000\.tar: .*{message}") as caught:
        shards.read(0)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == len(faults) * (2 if kind is CorruptError else 1)
    assert list(settings.glob("[!.]*")) == []
    server.faults = []
    check(shards, 0)


def test_nobody_listens() -> None:
    with Server(Path()) as server:
        url = server.url
    with pytest.raises(DataError, match=rf"^{url}: ClientConnectorError: ") as caught:
        ShardSet(url)
    assert caught.value.reason == "unreachable"


def test_a_damaged_copy_is_fetched_again(server: Server, settings: Path) -> None:
    shards = ShardSet(server.url)
    check(shards, 0)
    (copy,) = tars(settings)
    copy.write_bytes(bytes(copy.stat().st_size))
    check(shards, 0)
    copy.write_bytes(bytes(copy.stat().st_size))
    check_whole(ShardSet(server.url))
    copy.write_bytes(b"")
    check(shards, 0)
    assert server.asked.count("/shard-000000.tar") == 4


READER = """
import sys
from mmembed.data.shards.layout import ShardSet
shards = ShardSet(sys.argv[1])
print(flush=True)
sys.stdin.readline()
print(sum(shards.read(i).members["json"]["n"] for i in range(len(shards))))
"""


def test_two_processes_fetch_each_shard_once(server: Server, settings: Path) -> None:
    arguments = [sys.executable, "-c", READER, server.url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(arguments, text=True, **pipes) as one,  # type: ignore[call-overload]
        subprocess.Popen(arguments, text=True, **pipes) as two,  # type: ignore[call-overload]
    ):
        for reader in (one, two):  # both are ready
            reader.stdout.readline()
        for reader in (one, two):
            reader.stdin.write("\n")
            reader.stdin.flush()
        assert [reader.stdout.read().strip() for reader in (one, two)] == ["66", "66"]
    assert sorted(server.asked) == [f"/shard-00000{n}.tar" for n in range(SHARDS)]
    assert len(tars(settings)) == SHARDS


def test_a_cache_smaller_than_the_corpus(
    server: Server, folder: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = shard_path(folder, 0).stat().st_size
    monkeypatch.setenv("MMEMBED_CACHE_BYTES", str(2 * size))
    shards = ShardSet(server.url)
    check(shards, 0, 4, 1, 8)  # shards 0 1 0 2: the second was not used for longest
    assert [path[12] for path in server.asked] == ["0", "1", "2"]
    check(shards, 0, 8, 4)
    assert [path[12] for path in server.asked] == ["0", "1", "2", "1"]
    assert len(tars(settings)) == 2
    monkeypatch.setenv("MMEMBED_CACHE_BYTES", str(size - 1))
    with pytest.raises(DataError, match=f"takes {size} bytes, .* set MMEMBED_CACHE_BYTES to more"):
        ShardSet(server.url).read(0)
    monkeypatch.setenv("MMEMBED_CACHE_BYTES", "10 GB")
    with pytest.raises(UsageError, match="whole number of bytes"):
        ShardSet(server.url)


# URLs.


def test_memory(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        files.pipe_file(f"/corpus/{path.name}", path.read_bytes())
    check(ShardSet("memory://corpus"))
    with pytest.raises(DataError, match=r"^memory://nothing: there is no such"):
        ShardSet("memory://nothing")
    files.mkdir("/empty")
    with pytest.raises(DataError, match=r"^memory://empty: holds no shards"):
        ShardSet("memory://empty")


@pytest.mark.parametrize(
    "url",
    [
        "pipe:touch here",
        "pipe://touch here",
        "PIPE:touch here",
        "shell:touch here",
        "file:///etc",
        "ssh://host/path",
        "ftp://host/path",
        "gs://bucket",
        "s3:",
        "s3://",
        "simplecache::s3://bucket/x",
        "zip://x::http://host/a.zip",
        "s3://bucket/x::pipe:touch here",
    ],
)
def test_other_urls_are_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (url, Path(url)):
        with pytest.raises(UsageError, match="nor a URL that is allowed: s3, http, https, memory"):
            ShardSet(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_url("s3://bucket/a/") == as_url(Path("s3://bucket/a")) == "s3://bucket/a"
    assert as_url("HTTPS://host:80/a") == "https://host:80/a"
    monkeypatch.chdir(tmp_path)
    for name in ("here", "/there", "../s3:", "a/b:c"):
        assert as_url(name) is as_url(Path(name)) is None
    (tmp_path / "a:b").mkdir()
    assert as_url("a:b") is None
    assert remote.RemoteFolder("https://me:secret@host/x").name == "https://host/x"


# Media.


def test_a_clip_in_an_object_store(bucket: str, folder: Path) -> None:
    soundfile.write(folder / "tone.wav", np.zeros(16_000), 16_000)
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.put_file(str(folder / "tone.wav"), f"{bucket}/tone.wav")
    (clip,) = open_sources([f"{bucket}/tone.wav"])
    assert clip.name == f"{bucket}/tone.wav" and clip.key.endswith("corpora%2Fone%2Ftone%2Ewav")
    assert isinstance(clip, MediaSource)
    assert probe(clip) == ProbeResult(None, None, None)
    assert clip.load().info == ExampleInfo(1.0)


def test_media_behind_a_url(server: Server, folder: Path, settings: Path) -> None:
    soundfile.write(folder / "tone.wav", np.sin(np.arange(8000) / 9), 16_000)
    (folder / "empty.mp4").touch()
    near = load_example(Utterance("a", "tone.wav", start=0.1, end=0.3), folder)
    rows = [
        Utterance("a", f"{server.url}/tone.wav", start=0.1, end=0.3),
        Utterance("b", f"{server.url}/gone.wav"),
        Utterance("c", f"{server.url}/empty.mp4"),
        Utterance("d", "pipe://cat tone.wav"),
    ]
    with Decoder() as decoder:
        far, gone, empty, pipe = decoder.load([MediaSource(row, Path()) for row in rows])
    assert isinstance(far, Example)
    np.testing.assert_array_equal(far.audio, near.audio)
    assert isinstance(gone, DataError) and gone.reason == "missing"
    assert isinstance(empty, DataError)
    assert str(empty) == f"{server.url}/empty.mp4: the file is empty"
    assert isinstance(pipe, DataError) and "a URL that is allowed" in str(pipe)
    assert len(list(settings.glob("[!.]*"))) == 2  # fetched once and kept
