"""Tests run with sockets blocked, loopback aside: here, and in every Python that they start."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

ELSEWHERE = ("192.0.2.1", 80)  # an address of documentation (RFC 5737): nobody has it


def test_nothing_leaves_this_machine() -> None:
    with socket.socket() as sent, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        sent.connect(ELSEWHERE)
    with socket.socket(type=socket.SOCK_DGRAM) as sent, pytest.raises(PermissionError):
        sent.sendto(b"hello", ELSEWHERE)
    with pytest.raises(PermissionError, match=r"example\.org: tests speak to this machine alone"):
        socket.getaddrinfo("example.org", 443)


def test_nor_from_a_program() -> None:
    program = "from urllib.request import urlopen; urlopen('http://192.0.2.1/', timeout=5)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "socket.getaddrinfo 192.0.2.1: tests speak to this machine alone" in done.stderr


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=lambda: server.accept()[0].sendall(b"here"))
        answer.start()
        with socket.create_connection(server.getsockname()) as asked:
            assert asked.recv(4) == b"here"
        answer.join()
