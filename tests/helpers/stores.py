"""An object store on this machine for tests, and a way to it that fails when told to."""

from __future__ import annotations

import http.client
import http.server
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import fsspec
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """With a bucket "bucket"; the environment in which programs use it, which is set here, too."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it has a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()  # one for all servers
    env = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield env
    server.stop()


def stored(url: str) -> dict[str, bytes]:
    """All objects below a prefix, by the rest of their names."""
    files = fsspec.filesystem("s3", use_listings_cache=False)
    prefix = url.removeprefix("s3://") + "/"
    return {name.removeprefix(prefix): files.cat_file(name) for name in files.find(prefix)}


class Faulty(http.server.ThreadingHTTPServer):
    """Passes requests on to a store.

    Attributes:
        faults: what befalls the next requests that put something, in order: "503"; "dropped", the
            connection ends; "lost", it ends when all is done; "" nothing.
    """

    daemon_threads = True

    def __init__(self, store: str) -> None:
        self.store, self.faults = urlsplit(store).netloc, list[str]()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def faulty(store: str) -> Iterator[Faulty]:
    """A running one."""
    with Faulty(store) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a client may want to hear 100 before it sends a body
    timeout = 10

    def _pass_on(self) -> None:
        assert isinstance(self.server, Faulty)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        puts = self.command == "PUT" and self.server.faults
        fault = self.server.faults.pop(0) if puts else ""
        self.close_connection = True
        if fault == "dropped":
            return
        if fault.isdecimal():
            return self.send_error(int(fault))
        connection = http.client.HTTPConnection(self.server.store)
        headers = {n: value for n, value in self.headers.items() if n.lower() != "expect"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "lost":
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        pass
