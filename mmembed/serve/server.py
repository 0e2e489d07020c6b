"""The page over HTTP: which requests are answered, and one clip at a time.

    GET  /              the page; /style.css, /page.css and /page.js
    GET  /about         {"encoder": ..., "max_bytes": ..., "regressor": ..., "clips": ..., ...}
    POST /analyses      multipart: "clip" (the file), "text" (its words, optional)
                        -> an `Analysis`; every refusal is {"error": one line}

Only this machine is served unless the user names another address. Requests that other pages could
make a browser send are refused: those for a host name that is not ours (DNS rebinding), and posts
from another origin. The page may load nothing from elsewhere and no page may frame it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import signal
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from mmembed.config import Seconds
from mmembed.errors import DataError, MmembedError, UsageError, printable
from mmembed.io.json import dumps
from mmembed.serve.analysis import Analysis
from mmembed.serve.connections import HEADERS, as_json, listen
from mmembed.serve.upload import MAX_BYTES, RequestRefusedError, check_head, receive

MAX_CLIPS: Final = 4  # that are sent, wait or are analysed at once; more are refused
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHUTDOWN_TIMEOUT: Final[Seconds] = 1.0  # for requests in progress when the server ends

FILES: Final = {  # path -> file, in the folder of its package, and its type
    "/": ("mmembed.serve", "page/index.html", "text/html"),
    "/style.css": ("mmembed.report", "templates/style.css", "text/css"),
    "/page.css": ("mmembed.serve", "page/page.css", "text/css"),
    "/page.js": ("mmembed.serve", "page/page.js", "text/javascript"),
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
        """Whether only this machine can reach it."""
        return self.host == "localhost" or _is_loopback(self.host)

    def is_ours(self, host: str) -> bool:
        """Whether the Host header of a request is a name of this server.

        A foreign page whose name resolves to this address sends that name; an IP address cannot be
        made to point elsewhere. Ports are not compared, because a tunnel has another one.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host.lower()) or _is_loopback(name):
            return True
        return not self.is_local and _is_ip(name)


def serve(
    analyse: Analyse, about: Mapping[str, object], address: Address, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        analyse: a file, its name and its words -> its analysis; never called twice at once. An
            `MmembedError` is shown on the page.
        about: what the page says about the encoder.
        address: where to listen.
        ready: called with the page's URL once it can be opened.

    Raises:
        UsageError: it cannot listen there.
        KeyboardInterrupt: Ctrl-C.
    """

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with listening(analyse, about, address) as url:
            ready(url)
            await stop.wait()

    # The answer to a bad request says what is wrong with it.
    warnings.filterwarnings("ignore", module=r"aiohttp\.")
    asyncio.run(run())


@asynccontextmanager
async def listening(
    analyse: Analyse, about: Mapping[str, object], address: Address
) -> AsyncIterator[str]:
    """Serve while the context lasts; see `serve`.

    Yields:
        The page's URL.
    """
    worker = ThreadPoolExecutor(1, "analysis")
    app = _application(_Queue(analyse, worker), about, address)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    assert runner.server is not None
    try:
        try:
            server = await listen(runner.server, address.host, address.port)
        except (OSError, OverflowError) as error:
            raise UsageError(_refusal(address, error)) from None
        async with server:
            host = f"[{address.host}]" if ":" in address.host else address.host
            yield f"http://{host}:{server.sockets[0].getsockname()[1]}/"
    finally:
        worker.shutdown(wait=False, cancel_futures=True)
        await runner.cleanup()


def _application(queue: _Queue, about: Mapping[str, object], address: Address) -> web.Application:
    app = web.Application(middlewares=[_guard(address)])
    app.on_response_prepare.append(_add_headers)
    for path, (package, name, kind) in FILES.items():
        body = (resources.files(package) / name).read_bytes()
        app.router.add_get(path, _answer(body, kind))
    description = dumps({**about, "max_bytes": MAX_BYTES}).encode()
    app.router.add_get("/about", _answer(description, "application/json"))
    app.router.add_post("/analyses", queue.analyse)
    return app


class _Queue:
    """Analyses clips, one after another."""

    def __init__(self, analyse: Analyse, worker: ThreadPoolExecutor) -> None:
        self._analyse, self._worker = analyse, worker
        self._clips = 0

    async def analyse(self, request: web.Request) -> web.Response:
        """One clip, from its first byte to its analysis."""
        check_head(request)
        if self._clips >= MAX_CLIPS:
            busy = f"busy with {self._clips} other clips; try again in a moment"
            raise RequestRefusedError(503, busy)
        self._clips += 1
        try:
            # In no folder: however this process ends, the system frees its bytes.
            with tempfile.TemporaryFile(buffering=0) as file:
                clip = await receive(request, file)
                analysis = await asyncio.get_running_loop().run_in_executor(
                    self._worker, self._analyse, clip.path, clip.name, clip.text or None
                )
        finally:
            self._clips -= 1
        return as_json(asdict(analysis))


def _guard(address: Address) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not address.is_ours(request.host):
                raise RequestRefusedError(421, "this is not the name of this server")
            # Browsers always name the origin of a post.
            origin = request.headers.get("Origin")
            if request.method not in ("GET", "HEAD") and origin != f"http://{request.host}":
                raise RequestRefusedError(403, "only the page itself may send clips")
            return await handler(request)
        except RequestRefusedError as error:
            return as_json({"error": str(error)}, error.status)
        except web.HTTPException as error:  # no such page, no such method
            return as_json({"error": error.reason}, error.status)
        except DataError as error:
            return as_json({"error": str(error), "reason": error.reason}, 422)
        except MmembedError as error:
            return as_json({"error": str(error)}, 422)
        except ConnectionError:
            raise
        except Exception as error:
            line = f"the server failed: {type(error).__name__}: {' '.join(str(error).split())}"
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                print(f"error: {printable(line)}", file=sys.stderr, flush=True)
                return as_json({"error": line}, 507)
            logging.getLogger(__name__).exception("a request failed")
            return as_json({"error": line}, 500)

    return guard


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _answer(body: bytes, kind: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer


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
