"""Connections of the page's server: how many, how long idle, and the answer to bad HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from mmembed.config import Seconds
from mmembed.io.json import dumps

MAX_CONNECTIONS: Final = 64  # browsers open six; more are closed immediately
IDLE_TIMEOUT: Final[Seconds] = 60.0  # between requests, or until the headers are sent

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


async def listen(server: web.Server, host: str, port: int) -> asyncio.Server:
    """Accept connections for a server of aiohttp.

    Raises:
        OSError: it cannot listen there.
        OverflowError: there is no such port.
    """
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        if len(server.connections) >= MAX_CONNECTIONS:
            return _Closed()
        return _Connection(server, loop=loop, auto_decompress=False, keepalive_timeout=IDLE_TIMEOUT)

    return await loop.create_server(accept, host, port)


def as_json(value: Mapping[str, object], status: int = 200) -> web.Response:
    """A response that holds a JSON object."""
    text = dumps(value)  # ASCII, so that names that are no valid text pass
    return web.Response(text=text, content_type="application/json", status=status)


class _Connection(web.RequestHandler):
    """Answers bytes that are no HTTP with one line, as other bad requests."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:  # ours, and logged
            return super().handle_error(request, status, exc, message)
        response = as_json({"error": "the request is not valid HTTP"}, status)
        response.headers.update(HEADERS)
        response.force_close()
        return response


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.abort()
