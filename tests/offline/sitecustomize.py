"""No network but loopback, in whichever Python starts with this folder on PYTHONPATH.

Python imports a module of this name at every start, so processes that tests start, and those that
these start, are held to it too (sockets that libraries open without Python are not).
"""

import ipaddress
import socket
import sys

OWN_NAMES = ("", "localhost", socket.gethostname())


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook: names are not looked up and nobody is spoken to beyond this machine."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        held, address = arguments
        if held.family == socket.AF_UNIX or address is None:
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in OWN_NAMES:
        return
    try:
        if ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified:
            return
    except ValueError:
        pass
    raise PermissionError(f"{event} {name}: tests speak to this machine alone")


sys.addaudithook(refuse)
