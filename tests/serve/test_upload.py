"""Requests with a clip as strangers might send them: over sockets of this machine, byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mmembed.serve import connections, upload
from mmembed.serve.analysis import Analysis
from mmembed.serve.server import Address, listening

# aiohttp warns of headers in their own bytes, which pytest-xdist cannot pass on.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

PART = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.mp4"\r\n%s\r\n%s\r\n'
END = b"--x--\r\n"
CLIP = PART % (b"clip", b"", b"a clip") + END
GOOD = PART % (b"text", b"", b"red") + CLIP
MULTIPART = "multipart/form-data; boundary=x"


def echo(path: Path, name: str, text: str | None) -> Analysis:
    size = str(path.stat().st_size)
    return Analysis(name, 1.0, (), text, None, (), None, None, (), {"bytes": size})


Ask = Callable[[bytes], Awaitable[tuple[int, Any]]]


def play(scenario: Callable[[Ask, str], Awaitable[None]]) -> None:
    """Let a scenario send bytes to a server of this process."""

    async def run() -> None:
        async with listening(echo, {}, Address(port=0)) as url:
            host = url.split("/")[2]

            async def ask(request: bytes) -> tuple[int, Any]:
                """Status and JSON of the answer, or (0, None) where the connection is closed."""
                reader, writer = await asyncio.open_connection(*host.split(":"))
                writer.write(request)
                try:
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                    status, size = int(head.split()[1]), head.lower().split(b"content-length: ")[1]
                    body = await reader.readexactly(int(size.split()[0]))
                except (asyncio.IncompleteReadError, ConnectionError):
                    return 0, None
                finally:
                    writer.close()
                return status, json.loads(body)

            await scenario(ask, host)

    asyncio.run(run())


def request(host: str, body: bytes, kind: str = MULTIPART, *more: str, size: int = -1) -> bytes:
    size = len(body) if size < 0 else size
    lines = ["POST /analyses HTTP/1.1", f"Host: {host}", f"Origin: http://{host}",
             f"Content-Type: {kind}", f"Content-Length: {size}", "Connection: close",
             *more]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """What clients do wrong is not printed where the server runs."""
    yield
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []
    assert capfd.readouterr().err == ""


def test_nothing_is_inflated() -> None:
    zeros = PART % (b"clip", b"", bytes(3_000_000)) + END

    async def scenario(ask: Ask, host: str) -> None:
        for name, packed in (("gzip", gzip.compress(zeros)), ("deflate", zlib.compress(zeros))):
            for said in (name, name.upper(), f" {name} ", f"{name}, identity", "br", "nonsense"):
                status, reply = await ask(
                    request(host, packed, MULTIPART, f"Content-Encoding: {said}")
                )
                assert status == 415
                assert reply == {"error": "a clip has to be sent without a Content-Encoding"}
            double = ("Content-Encoding: identity", f"Content-Encoding: {name}")
            assert (await ask(request(host, packed, MULTIPART, *double)))[0] in (400, 415)
        for name in ("Content-Encoding: gzip", "Content-Transfer-Encoding: base64"):
            part = PART % (b"clip", f"{name}\r\n".encode(), b"a clip") + END
            assert (await ask(request(host, part)))[0] == 415
        assert (await ask(request(host, GOOD, MULTIPART, "Content-Encoding: identity")))[0] == 200

    play(scenario)


def test_bytes_are_counted_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_BYTES", 100_000)
    clip = PART % (b"clip", b"", bytes(200_000)) + END

    async def scenario(ask: Ask, host: str) -> None:
        assert (await ask(request(host, clip)))[0] == 413
        assert (await ask(request(host, clip, size=9_000)))[0] == 400  # it ends in the clip
        chunked = request(host, b"", MULTIPART, "Transfer-Encoding: chunked")
        chunked = chunked.replace(b"Content-Length: 0\r\n", b"")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(clip), clip)
        assert (await ask(chunked + body))[0] == 411
        both = request(host, b"", MULTIPART, "Transfer-Encoding: chunked", size=50)
        assert (await ask(both + body))[0] in (400, 411)
        for wrong in ("-5", "1e3", "0x10", "9" * 400, "5, 6"):
            bad = request(host, GOOD).replace(
                b"Length: %d" % len(GOOD), b"Length: " + wrong.encode()
            )
            assert (await ask(bad))[0] in (400, 411, 413)

    play(scenario)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"no boundary at all"),
        (400, b"--x"),
        (400, b"--x\r\n"),
        (400, END),
        (400, b"--x\r\nno colon in this line\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\n: no name\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\nContent-Disposition: form-data; name=\"clip\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\nContent-Disposition: \xff\xfe\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\nContent-Disposition: form-data; name=\"a\0b\"\r\n\r\nc\r\n--x--\r\n"),
        (400, b"--x\r\nContent Disposition\xe2\x80\xa8: form-data\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\n\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\n" + b"A: b\r\n" * 5_000 + b"\r\na clip\r\n--x--\r\n"),
        (400, b"--x\r\nA: " + b"b" * 100_000 + b"\r\n\r\na clip\r\n--x--\r\n"),
        (400, PART % (b"clip", b"Content-Type: multipart/mixed; boundary=y\r\n", b"--y\r\n") + END),
        (400, PART % (b"clip", b"Content-Type: multipart/mixed\r\n", b"--y\r\n") + END),
        (400, PART % (b"_charset_", b"", b"nonsense" * 10) + GOOD),
        (400, PART % (b"_charset_", b"", b"\xff\xfe") + GOOD),
        (400, (PART % (b"text", b"", b"red")) * 5_000 + GOOD),
        (400, (PART % (b"clip", b"", b"red")) * 2 + END),
        (400, PART % (b"other", b"", b"red") + GOOD),
        (400, PART % (b"text", b"", b"red") + END),
        (400, (PART % (b"clip", b"", b"a clip"))),  # no end
        (400, GOOD.replace(b"--x", b"--y")),
        (413, PART % (b"text", b"", b"red" * 10_000) + GOOD),
        (200, PART % (b"clip", b"Content-Length: 99999\r\n", b"a clip") + END),
        (200, PART % (b"clip", b"Content-Type: text/plain; charset=nonsense\r\n", b"a") + END),
        (200, PART % (b"text", b"Content-Type: text/plain; charset=utf-7\r\n", b"\xff") + CLIP),
        (200, b"a preamble\r\n" + GOOD + b"an epilogue"),
        (200, PART % (b"clip", b"", b"a clip") + PART % (b"text", b"", b"red") + END),
        (200, GOOD.replace(b'"a.mp4"', b'"a\\"b%0a\xff.mp4"')),
        (200, GOOD.replace(b'filename="a.mp4"', b"filename*=utf-8''a%0Ab%1b%00")),
        (200, GOOD.replace(b'filename="a.mp4"', b"filename*=nonsense''a")),
    ],
)  # fmt: skip
def test_parts_as_they_should_not_be(status: int, body: bytes) -> None:
    async def scenario(ask: Ask, host: str) -> None:
        found, reply = await ask(request(host, body))
        assert found == status
        assert "\n" not in (reply["error"] if status > 200 else reply["name"])
        assert (await ask(request(host, GOOD)))[1]["notes"] == {"bytes": "6"}

    play(scenario)


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", "nonsense", "", ";;;",
     "multipart/form-data; boundary=" + "x" * 99,
     'multipart/form-data; boundary="x', "multipart/form-data; boundary=\xe9", "multipart/",
     "application/json"],
)  # fmt: skip
def test_kinds_of_body_as_they_should_not_be(kind: str) -> None:
    async def scenario(ask: Ask, host: str) -> None:
        status, reply = await ask(request(host, GOOD, kind))
        assert status in (400, 415) or (status == 200 and 'boundary="x' in kind)
        assert "\n" not in reply.get("error", "")

    play(scenario)


def test_mutated_requests_are_refused_or_answered() -> None:
    dice = random.Random(0)

    def mutate(good: bytes) -> bytes:
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(data))
            kind = dice.randrange(4)
            if kind == 0:
                data[place] = dice.randrange(256)
            elif kind == 1:
                del data[place : place + dice.randint(1, 20)]
            elif kind == 2:
                data[place:place] = dice.choice([b"\r\n", b"\0", b"--x", b";", b'"', b":" * 9])
            else:
                data[place:place] = data[dice.randrange(len(data)) :][:30]
        return bytes(data)

    async def scenario(ask: Ask, host: str) -> None:
        async def one(sent: bytes) -> None:
            try:
                status, reply = await asyncio.wait_for(ask(sent), 1)
            except (TimeoutError, IndexError):  # it promises bytes that never come, or is a HEAD
                return
            assert status < 500, sent
            assert status in (0, 200) or "\n" not in reply["error"]

        good = request(host, GOOD)
        for _ in range(10):
            await asyncio.gather(*(one(mutate(good)) for _ in range(10)))
            assert (await ask(good))[0] in (200, 503)

    play(scenario)


def test_slow_requests_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "IDLE_TIMEOUT", 0.2)

    async def scenario(ask: Ask, host: str) -> None:
        status, reply = await ask(request(host, GOOD[:-30], size=len(GOOD)))
        assert (status, reply["error"][:19]) == (408, "nothing arrived for")
        monkeypatch.setattr(upload, "UPLOAD_TIMEOUT", 0.1)
        status, reply = await ask(request(host, GOOD[:-30], size=len(GOOD)))
        assert (status, reply["error"][:14]) == (408, "took more than")

    play(scenario)


def test_idle_connections_end_and_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connections, "IDLE_TIMEOUT", 0.5)

    async def scenario(ask: Ask, host: str) -> None:
        held = [await asyncio.open_connection(*host.split(":")) for _ in range(6)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nHost: ")  # and no more
        for reader, writer in held:
            assert await asyncio.wait_for(_rest(reader), 60) == b""
            writer.close()
        assert (await ask(request(host, GOOD)))[0] == 200

    play(scenario)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_what_is_no_http_gets_a_line() -> None:
    async def scenario(ask: Ask, host: str) -> None:
        line = {"error": "the request is not valid HTTP"}
        for sent in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET /" + b"a" * 99_999 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 999 + b"\r\n",
        ):
            assert await ask(sent) == (400, line)

    play(scenario)
