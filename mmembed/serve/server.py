"""The page over HTTP: who may ask, how much, and one clip at a time.

    GET  /              the page; /page.css and /page.js
    GET  /about         {"encoder": ..., "most_bytes": ..., "curves": ..., "neighbours": ...}
    POST /analyses      multipart: "text" (what was said, may be empty), then "clip" (the file)
                        -> an `Analysis`; any refusal is {"error": one line}

Nobody but this machine is served unless another address is asked for. What a browser could be made
to do by other pages is refused: requests for a name that is not ours (DNS rebinding), and posts
that another origin sends. The page may load nothing from elsewhere and no page may frame it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, web

from mmembed.config import Seconds
from mmembed.errors import DataError, MmembedError, UsageError
from mmembed.serve.analysis import Analysis

MOST_BYTES: Final = 500_000_000  # of a request, so nearly of a clip
MOST_TEXT: Final = 20_000  # bytes of UTF-8; 300 s of fast speech take a quarter of it
WAITING: Final = 4  # clips that are sent, wait or are analysed; more are turned away
SENDING: Final[Seconds] = 600.0  # that one may take to send
LEAVING: Final[Seconds] = 1.0  # that answers may take when the server ends
CHUNK: Final = 1 << 18  # bytes

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Analyse = Callable[[Path, str, str | None], Analysis]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: a name or an IP address of this machine.
        port: 0 = any that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can ask."""
        return self.host == "localhost" or _is_loopback(self.host)

    def is_ours(self, host: str) -> bool:
        """Whether the Host header of a request may name us.

        A page that had its own name point here would send that name; an IP address cannot be made
        to point elsewhere. Ports are not compared: tunnels have others.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host.lower()) or _is_loopback(name):
            return True
        return not self.is_local and _is_ip(name)


def serve(
    analyse: Analyse,
    about: Mapping[str, object],
    address: Address,
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        analyse: a file, its name and what is said in it -> its analysis; never called twice at
            once. An `MmembedError` is shown on the page.
        about: what the page tells of the encoder.
        address: where to listen.
        ready: called with the page's URL once it can be opened.

    Raises:
        UsageError: it cannot listen there.
        KeyboardInterrupt: Ctrl-C.
    """
    asyncio.run(_serve(analyse, about, address, ready))


async def _serve(
    analyse: Analyse,
    about: Mapping[str, object],
    address: Address,
    ready: Callable[[str], None],
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with listening(analyse, about, address) as url:
        ready(url)
        await stop.wait()


@asynccontextmanager
async def listening(
    analyse: Analyse, about: Mapping[str, object], address: Address
) -> AsyncIterator[str]:
    """Serve while the context lasts; see `serve`.

    Yields:
        The page's URL.
    """
    worker = ThreadPoolExecutor(1, "analysis")
    with tempfile.TemporaryDirectory(prefix="mmembed-") as folder:
        app = _application(_Desk(analyse, worker, Path(folder)), about, address)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=LEAVING
        )
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address.host, address.port).start()
            except (OSError, OverflowError) as error:
                raise UsageError(_refusal(address, error)) from None
            yield _url(address.host, runner.addresses[0][1])
        finally:
            worker.shutdown(wait=False, cancel_futures=True)
            await runner.cleanup()


def _application(desk: _Desk, about: Mapping[str, object], address: Address) -> web.Application:
    app = web.Application(middlewares=[_guard(address)])
    app.on_response_prepare.append(_add_headers)
    page = resources.files("mmembed.serve") / "page"
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, _answer((page / name).read_bytes(), kind))
    told = json.dumps({**about, "most_bytes": MOST_BYTES}).encode()
    app.router.add_get("/about", _answer(told, "application/json"))
    app.router.add_post("/analyses", desk.take)
    return app


class _Desk:
    """Takes clips, one after another."""

    def __init__(self, analyse: Analyse, worker: ThreadPoolExecutor, folder: Path) -> None:
        self._analyse, self._worker, self._folder = analyse, worker, folder
        self._taken = 0

    async def take(self, request: web.Request) -> web.Response:
        """One clip, from its first byte to its analysis."""
        if request.content_length is None:
            raise _Refused(411, "the size of the request is not told")
        if request.content_length > MOST_BYTES:
            size = f"{request.content_length / 1e6:.0f} MB"
            raise _Refused(413, f"{size} are too much, at most {MOST_BYTES / 1e6:.0f} MB at once")
        if self._taken >= WAITING:
            raise _Refused(503, f"busy with {self._taken} other clips; try again in a moment")
        self._taken += 1
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder) as file:
                try:
                    async with asyncio.timeout(SENDING):
                        name, text = await _receive(request, file)
                except TimeoutError:
                    raise _Refused(408, f"took more than {SENDING:.0f} s to arrive") from None
                loop = asyncio.get_running_loop()
                path = Path(file.name)
                analysis = await loop.run_in_executor(
                    self._worker, self._analyse, path, name, text or None
                )
        finally:
            self._taken -= 1
        return _json(asdict(analysis))


async def _receive(request: web.Request, file: IO[bytes]) -> tuple[str, str]:
    """Write the clip to a file; its name, and what is said in it."""
    if request.content_type != "multipart/form-data":
        raise _Refused(415, "a clip comes as multipart/form-data")
    text = ""
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in ("text", "clip"):
                break
            if part.name == "clip":
                while chunk := await part.read_chunk(CHUNK):
                    file.write(chunk)
                file.flush()
                return part.filename or "clip", text
            held = bytearray()
            while len(held) <= MOST_TEXT and (chunk := await part.read_chunk()):
                held += chunk
            if len(held) > MOST_TEXT:
                raise _Refused(413, f"what was said is longer than {MOST_TEXT} bytes")
            text = held.decode("utf-8", "replace").strip()
    except ValueError:
        raise _Refused(400, "the request is damaged") from None
    raise _Refused(400, "the request holds no clip")


class _Refused(Exception):
    """A request that gets an HTTP status and a line instead of an answer."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def _guard(address: Address) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not address.is_ours(request.host):
                raise _Refused(421, "this is not the name of this server")
            # Browsers always name the origin of a post.
            origin = request.headers.get("Origin")
            if request.method not in ("GET", "HEAD") and origin != f"http://{request.host}":
                raise _Refused(403, "only the page itself may send clips")
            return await handler(request)
        except _Refused as error:
            return _json({"error": str(error)}, error.status)
        except web.HTTPException as error:  # no such page, no such method
            return _json({"error": error.reason}, error.status)
        except DataError as error:
            return _json({"error": str(error), "reason": error.reason}, 422)
        except MmembedError as error:
            return _json({"error": str(error)}, 422)
        except Exception as error:
            logging.getLogger(__name__).exception("a request failed")
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            line = f"this went wrong here: {type(error).__name__}: {error}"
            return _json({"error": " ".join(line.split())}, 507 if full else 500)

    return guard


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _answer(body: bytes, kind: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer


def _json(value: Mapping[str, object], status: int = 200) -> web.Response:
    text = json.dumps(value, allow_nan=False)  # ASCII, so that a name that is no text passes
    return web.Response(text=text, content_type="application/json", status=status)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _refusal(address: Address, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {address.port} of {address.host} is taken; --port names another"
    why = error.strerror if isinstance(error, OSError) else str(error)
    return f"cannot listen on port {address.port} of {address.host}: {why}"


def _is_ip(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _is_loopback(name: str) -> bool:
    return _is_ip(name) and ipaddress.ip_address(name).is_loopback
