"""`trainer serve`: checks everything that can be checked, then runs `bentoml serve` of the project's service."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import check_engine
from trainer.errors import InputError
from trainer.serving.settings import read_settings
from trainer.serving.tracing import check_tracing

PROJECT = Path(__file__).parents[1]
SERVICE = "service.py"
MAX_PORT = 65_535


@dataclass(frozen=True)
class Launch:
    """The command of a server that can be started."""

    tag: str  # of the model that is served at start-up
    host: str  # an IP address
    port: int
    settings: dict[str, str]
    with_token: bool  # whether clients need a token

    def __str__(self) -> str:
        """One line: the model, the address, and who can reach it."""
        address = ipaddress.ip_address(self.host)
        if address.is_loopback:
            reachable = "this machine only; --host 0.0.0.0 for all"
        else:
            reachable = (
                f"every machine that reaches this one, {'with a token' if self.with_token else 'without password'}"
            )
        loopback = "127.0.0.1" if address.version == 4 else "::1"
        page = _url(loopback if address.is_unspecified else self.host, self.port)
        return f"serving {self.tag} at {_url(self.host, self.port)} ({reachable}); page: {page}/ui"

    def command(self) -> list[str]:
        """The `bentoml serve` command. `-P`: Python must not import modules from the user's folder."""
        settings = [word for name, value in self.settings.items() for word in ("--arg", f"{name}={value}")]
        address = ["--working-dir", str(PROJECT), "--host", self.host, "--port", str(self.port)]
        return [sys.executable, "-P", "-m", "bentoml", "serve", "service:Classifier", *address, *settings]

    def run(self) -> NoReturn:
        """Replace this process by the command, so that signals and exit codes are BentoML's."""
        environment = dict(os.environ)
        if home := environment.get("BENTOML_HOME"):
            environment["BENTOML_HOME"] = os.path.abspath(home)  # the workers run in the project's folder
        os.execve(sys.executable, self.command(), environment)


def prepare(model: str | None, host: str, port: int, arguments: Sequence[str]) -> Launch:
    """Check the model (None: the newest), the settings NAME=VALUE in `arguments` and the address of a server.

    Raises InputError for a wrong setting, a missing model, traces that cannot be sent, or an address or port that
    cannot be bound; ArtifactError for a damaged model.
    """
    if not (PROJECT / SERVICE).is_file():
        raise InputError(
            f"{PROJECT} has no {SERVICE}: trainer was installed without its project; in the project's folder, "
            "`pip install --editable .` installs it with its service"
        )
    given = dict(_split(argument) for argument in arguments)
    if model is not None:
        if given.get("model", model) != model:
            raise InputError(f"--arg model: both {model!r} and {given['model']!r} are given; one is expected")
        given["model"] = model
    try:
        settings = read_settings(given, os.environ)
    except ValueError as error:
        raise InputError(str(error)) from None
    check_tracing()
    stored = store.find(settings.model)
    check_engine(artifact.load(stored.path), settings.engine)
    # Absolute paths: the supervisor runs in the user's folder, its workers in the project's.
    given |= {name: str(value.absolute()) for name, value in settings if isinstance(value, Path)}
    return Launch(stored.tag, _address(host, port), port, given, settings.token_file is not None)


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise InputError(f"--arg: {argument!r} is wrong; NAME=VALUE is expected")
    return name, value


def _address(host: str, port: int) -> str:
    """The IP address of `host`. Raises InputError unless `port` is free there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"--host: {host!r} is not an address, such as 127.0.0.1 or 0.0.0.0") from None
    address = str(found[0][4][0])
    if not _is_free(family, address, port):
        free = next((other for other in range(port + 1, MAX_PORT + 1) if _is_free(family, address, other)), None)
        hint = f"; try --port {free}" if free else ""
        raise InputError(f"--port: {port} of {address} is taken by another program{hint}")
    return address


def _is_free(family: socket.AddressFamily, address: str, port: int) -> bool:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as BentoML does
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise InputError(f"--host {address} --port {port} cannot be listened on: {error.strerror}") from None
    return True


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
