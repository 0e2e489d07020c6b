"""Who may ask, how much, and one clip at a time: over sockets of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData
from helpers.served import HOSTILE, open_served, write_served

from mmembed.errors import DataError, UsageError
from mmembed.serve import server
from mmembed.serve.analysis import Analysis
from mmembed.serve.server import MAX_CLIPS, Address, listening

ABOUT = {"encoder": "made", "clips": 5}
Scenario = Callable[[str, ClientSession], Awaitable[None]]


def nothing(path: Path, name: str, text: str | None) -> Analysis:
    return Analysis(name, 1.0, (), text, None, (), None, None, (), {"bytes": path.read_text()})


def play(scenario: Scenario, analyse: server.Analyse = nothing) -> None:
    """Let a client at a server of this process."""

    async def run() -> None:
        async with listening(analyse, ABOUT, Address(port=0)) as url, ClientSession() as client:
            await scenario(url, client)

    asyncio.run(run())


def form(content: bytes = b"a clip", name: str = "mine.mp4", text: str = "") -> FormData:
    made = FormData(quote_fields=False)
    made.add_field("text", text)
    made.add_field("clip", content, filename=name)
    return made


async def post(url: str, client: ClientSession, data: Any, **headers: str) -> tuple[int, Any]:
    named = {"Origin": url.rstrip("/"), **headers}
    async with client.post(f"{url}analyses", data=data, headers=named) as answer:
        return answer.status, await answer.json()


class Links(HTMLParser):
    """What a page refers to, and whether it brings code along."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag != "style" and not any(name.startswith("on") for name, _ in attrs)
        assert "style" not in dict(attrs)


def test_the_page_and_its_parts_come_from_here_alone() -> None:
    async def scenario(url: str, client: ClientSession) -> None:
        texts = {}
        for path in ("", "style.css", "page.css", "page.js", "about"):
            async with client.get(url + path) as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy and "http" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                texts[path] = await answer.text()
        assert Links(texts[""]).found == ["data:,", "/style.css", "/page.css", "/page.js"]
        reply = json.loads(texts["about"])
        assert reply == {**ABOUT, "max_bytes": server.MAX_BYTES}
        outside = texts["page.js"].replace("http://www.w3.org/2000/svg", "")
        assert "http" not in outside + texts["style.css"] + texts["page.css"]
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
            assert forbidden not in texts["page.js"]
        async with client.get(url + "analyses") as answer:
            assert answer.status == 405
        async with client.get(url + "../page.js/..%2f..%2fserver.py") as answer:
            assert (answer.status, await answer.json()) == (404, {"error": "Not Found"})

    play(scenario)


@pytest.mark.parametrize(
    ("bound", "host", "ours"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost:9000", True),  # through a tunnel
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "192.0.2.7:8000", False),
        ("127.0.0.1", "localhost@evil.example", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.0.2.7:8000", True),
        ("0.0.0.0", "evil.example", False),
        ("lab.example", "lab.example:8000", True),
        ("lab.example", "evil.example", False),
    ],
)
def test_names_of_others_are_refused(bound: str, host: str, ours: bool) -> None:
    assert Address(bound).is_ours(host) == ours


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_what_is_local(host: str, local: bool) -> None:
    assert Address(host).is_local == local


def test_a_name_that_points_here_gets_nothing() -> None:
    async def scenario(url: str, client: ClientSession) -> None:
        for path in ("", "about", "nothing"):
            async with client.get(url + path, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 421
                assert await answer.json() == {"error": "this is not the name of this server"}
        assert (await post(url, client, form(), Host="evil.example"))[0] == 421

    play(scenario)


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://{host}", None])
def test_posts_of_other_pages_are_refused(origin: str | None) -> None:
    async def scenario(url: str, client: ClientSession) -> None:
        host = url.split("/")[2]
        headers = {} if origin is None else {"Origin": origin.format(host=host)}
        async with client.post(f"{url}analyses", data=form(), headers=headers) as answer:
            assert answer.status == 403
            assert "only the page itself" in (await answer.json())["error"]

    play(scenario)


def test_too_much_is_refused_before_it_comes() -> None:
    async def scenario(url: str, client: ClientSession) -> None:
        host, port = url.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = ["POST /analyses HTTP/1.1", f"Host: {host}:{port}", f"Origin: http://{host}:{port}",
                 "Content-Type: multipart/form-data; boundary=x",
                 f"Content-Length: {server.MAX_BYTES + 1}", "", ""]  # fmt: skip
        writer.write("\r\n".join(lines).encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 413 ")
        body = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        assert json.loads(body) == {"error": "500 MB are too much, the limit is 500 MB"}
        writer.close()

        async def drip() -> Any:
            yield b"no length is given"

        assert (await post(url, client, drip()))[0] == 411

    play(scenario)


def test_requests_that_are_none() -> None:
    async def scenario(url: str, client: ClientSession) -> None:
        assert await post(url, client, b"a clip") == (
            415, {"error": "a clip has to be sent as multipart/form-data"},
        )  # fmt: skip
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert (await post(url, client, b"no boundary", **kind))[0] == 400
        without = FormData({"text": "red"}, default_to_multipart=True)
        assert await post(url, client, without) == (400, {"error": "the request holds no clip"})
        status, reply = await post(url, client, form(text="ja " * 9_000))
        assert (status, reply["error"]) == (413, "the words are longer than 20000 bytes")
        status, reply = await post(url, client, form(text=" so it goes\n"))
        assert (status, reply["transcript"], reply["notes"]) == (
            200, "so it goes", {"bytes": "a clip"},
        )  # fmt: skip

    play(scenario)


def nameless() -> int:
    """How many files of the server this process holds open."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # it was that of the list
            name = os.readlink(f"/proc/self/fd/{number}")
            found += name.startswith(tempfile.gettempdir()) and "(deleted)" in name
    return found


def test_one_at_a_time_and_not_too_many_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    busy, go, most = threading.Semaphore(0), threading.Event(), [0, 0]

    def slowly(path: Path, name: str, text: str | None) -> Analysis:
        most[0] += 1
        most[1] = max(most)
        busy.release()
        assert go.wait(30)
        most[0] -= 1
        return nothing(path, name, text)

    async def scenario(url: str, client: ClientSession) -> None:
        sent = [asyncio.create_task(post(url, client, form(name=f"{n}"))) for n in range(MAX_CLIPS)]
        await asyncio.to_thread(busy.acquire)
        while nameless() < MAX_CLIPS:
            await asyncio.sleep(0.01)
        assert await post(url, client, form()) == (
            503, {"error": "busy with 4 other clips; try again in a moment"},
        )  # fmt: skip
        go.set()
        assert [status for status, _ in await asyncio.gather(*sent)] == [200] * MAX_CLIPS
        assert most == [0, 1]
        assert nameless() == 0
        assert (await post(url, client, form()))[0] == 200

    play(scenario, slowly)
    assert [*tmp_path.iterdir()] == []


def test_who_leaves_gives_up_the_place_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def scenario(url: str, client: ClientSession) -> None:
        host, port = url.split("/")[2].split(":")
        for _ in range(MAX_CLIPS + 1):
            _, writer = await asyncio.open_connection(host, int(port))
            lines = ["POST /analyses HTTP/1.1", f"Host: {host}:{port}",
                     f"Origin: http://{host}:{port}", "Content-Length: 900",
                     "Content-Type: multipart/form-data; boundary=x", "", "--x"]  # fmt: skip
            writer.write("\r\n".join(lines).encode())
            while not nameless():
                await asyncio.sleep(0.01)
            writer.close()
            while nameless():
                await asyncio.sleep(0.01)
        assert (await post(url, client, form()))[0] == 200

    play(scenario)


def test_what_goes_wrong_is_one_line_and_the_server_stays(
    capfd: pytest.CaptureFixture[str],
) -> None:
    errors: list[Exception] = [
        DataError("mine.mp4", "damaged", "cannot be decoded"),
        UsageError("no such thing"),
        RuntimeError("first\nsecond"),
        OSError(28, "No space left on device"),
    ]

    def failing(path: Path, name: str, text: str | None) -> Analysis:
        if errors:
            raise errors.pop(0)
        return nothing(path, name, text)

    async def scenario(url: str, client: ClientSession) -> None:
        for status, line in (
            (422, "mine.mp4: cannot be decoded"),
            (422, "no such thing"),
            (500, "the server failed: RuntimeError: first second"),
            (507, "the server failed: OSError: [Errno 28] No space left on device"),
        ):
            found, reply = await post(url, client, form())
            assert (found, reply["error"]) == (status, line)
        assert (await post(url, client, form()))[0] == 200

    play(scenario, failing)


def rounded(value: Any) -> Any:
    """Numbers with a tolerance: with two threads, those of a server's thread add up otherwise."""
    if isinstance(value, dict):
        return {name: rounded(held) for name, held in value.items()}
    if isinstance(value, list):
        return [rounded(held) for held in value]
    return pytest.approx(value, rel=1e-4, abs=1e-4) if isinstance(value, float) else value


def test_a_real_clip_and_bad_ones(tmp_path: Path) -> None:
    made = write_served(tmp_path)
    good, bad = (made / "clip.mp4").read_bytes(), (made / "bad.mp4").read_bytes()
    analyser = open_served(made)

    async def scenario(url: str, client: ClientSession) -> None:
        for content, reason in (bad, "not_media"), (b"", "empty"), (good[:400], "damaged"):
            status, reply = await post(url, client, form(content, HOSTILE.replace('"', "")))
            assert (status, reply["reason"]) == (422, reason)
            assert reply["error"].startswith(HOSTILE.replace('"', "") + ": ")
            assert "\n" not in reply["error"] and str(tempfile.gettempdir()) not in reply["error"]
        status, reply = await post(url, client, form(good))
        again = analyser(made / "clip.mp4", "mine.mp4")
        assert status == 200
        assert reply == rounded(json.loads(json.dumps(asdict(again))))

    play(scenario, analyser)
