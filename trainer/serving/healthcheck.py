"""Health check of a container image: `python -IS healthcheck.py` exits with 0 while /readyz says 200.

It runs every few seconds and shares the server's CPUs: it imports nothing of the server and little of Python. It finds
the address in the command line of process 1, the server, or in the environment that they share.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys

TIMEOUT_S = 2
DEFAULT_HOST, DEFAULT_PORT = "0.0.0.0", "3000"
PORT_VARIABLES = ("BENTOML_PORT", "PORT")  # the second is the one that platforms set
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of a server that listens on every address
REQUEST = b"GET /readyz HTTP/1.0\r\n\r\n"


def server_address(command: list[str]) -> tuple[str, str]:
    """Host and port of the server with this command line: its options, else the environment, else the defaults."""
    host = _option(command, "--host") or os.environ.get("BENTOML_HOST") or DEFAULT_HOST
    ports = (os.environ.get(variable) for variable in PORT_VARIABLES)
    return host, _option(command, "--port") or next(filter(None, ports), DEFAULT_PORT)


def _option(command: list[str], name: str) -> str:
    """The last value of an option `NAME VALUE` or `NAME=VALUE`; empty without one."""
    value = ""
    for word, following in itertools.pairwise([*command, ""]):
        if word == name:
            value = following
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
    return value


def is_ready(host: str, port: str) -> bool:
    with socket.create_connection((LOOPBACK.get(host, host), int(port)), TIMEOUT_S) as connection:
        connection.sendall(REQUEST)
        return b" 200 " in connection.recv(64)


if __name__ == "__main__":
    with open("/proc/1/cmdline", encoding="utf-8", errors="replace") as command_line:
        address = server_address(command_line.read().split("\0"))
    try:
        sys.exit(not is_ready(*address))
    except OSError as error:
        sys.exit(f"{address[0]}:{address[1]} does not answer: {error}")
