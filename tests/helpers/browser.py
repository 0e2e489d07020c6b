"""A real browser for tests: Chromium without a window, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
OPTIONS = (
    "--headless=new", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--remote-debugging-port=0", "--window-size=1200,1000",
    "--no-sandbox",  # of which root has none; the pages are ours
)  # fmt: skip
TIMEOUT = 60.0  # seconds


class Browser:
    """One page; use as an async context manager.

    Attributes:
        requests: URLs that the page asked for.
        complaints: messages of its console, and errors of its scripts.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
        self._session = ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as listed:
            (page,) = [one for one in await listed.json() if one["type"] == "page"]
        url = page["webSocketDebuggerUrl"]
        self._socket = await self._session.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read(self._socket))
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reader.cancel()
        await self._session.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._profile.cleanup()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, TIMEOUT)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        arguments = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = await self.call("Runtime.evaluate", **arguments)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait for an expression to become true."""
        end = time.monotonic() + TIMEOUT
        while not await self.run(script):
            assert time.monotonic() < end, f"{script} stays false: {self.complaints}"
            await asyncio.sleep(0.05)

    async def drop(self, selector: str, *files: Path) -> None:
        """Drag files from the desktop over an element and let go."""
        middle = "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        x, y = await self.run(
            f"{middle}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    async def press(self, key: str) -> None:
        """A key, by its name in `KeyboardEvent.key`; a single character is typed."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    async def _port(self) -> int:
        """Which the browser writes once it listens."""
        file = Path(self._profile.name) / "DevToolsActivePort"
        end = time.monotonic() + TIMEOUT
        while not (file.exists() and file.read_text().count("\n")):
            assert time.monotonic() < end and self._process.poll() is None, "no browser"
            await asyncio.sleep(0.05)
        return int(file.read_text().split()[0])

    async def _read(self, socket: ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            received = json.loads(message.data)
            what = received.get("params", {})
            if "id" in received:
                answer = self._answers.pop(received["id"])
                if "error" in received:
                    answer.set_exception(RuntimeError(received["error"]["message"]))
                else:
                    answer.set_result(received["result"])
            elif received["method"] == "Network.requestWillBeSent":
                self.requests.append(what["request"]["url"])
            elif received["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(what["exceptionDetails"]))
            elif received["method"] == "Log.entryAdded":
                self.complaints.append(what["entry"]["text"])
