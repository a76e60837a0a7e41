"""Predictions of a running server."""

from __future__ import annotations

import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.predict.files import Answer
from trainer.predict.image_input import encoded

TIMEOUT_S = 30  # for a connection and for each read


class RemoteModel:
    """The model of a server at `url`, which may leave out http://. It is sent the bearer token `token` unless empty.

    Raises InputError for what is no address.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._url = _complete(url)
        self._token = token
        self._opener = _opener(self._url)

    @property
    def tag(self) -> str:
        """NAME:VERSION, as the server says. Raises InputError if it does not."""
        try:
            return str(self._ask("/model")["model"])
        except (urllib.error.HTTPError, KeyError, TypeError) as error:
            reason = _message(error) if isinstance(error, urllib.error.HTTPError) else "it names no model"
            raise InputError(f"--url: {self._url}/model: {reason}") from error

    def predict(self, paths: Sequence[Path]) -> Iterator[Answer]:
        """Yield the answers for image files, in order. Raises InputError if no server answers."""
        for path in paths:
            try:
                data = encoded(path)
            except InputError as error:
                yield error
                continue
            try:
                answer = self._ask("/predict", data)
            except urllib.error.HTTPError as error:
                yield InputError(f"{path}: {_message(error)}")
            else:
                yield answer | {"path": str(path)}

    def _ask(self, endpoint: str, body: bytes | None = None) -> Any:
        """The JSON that a GET, or a POST of `body`, is answered with. Raises HTTPError for an error of the contract."""
        request = urllib.request.Request(f"{self._url}{endpoint}", data=body)
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        if self._token:
            # Not sent to another server after a redirect.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(f"--url: no answer from {self._url}: {getattr(error, 'reason', error)}") from error


def _complete(url: str) -> str:
    """The address of a server with its scheme, http:// by default, and without a slash at the end."""
    complete = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        address = urllib.parse.urlsplit(complete)
        _ = address.port  # raises ValueError if it is not a number
        if address.scheme.lower() in ("http", "https") and address.hostname:
            return complete
        problem = "a host, and http:// or https:// before it, are expected"
    except ValueError as error:
        problem = str(error)
    raise InputError(f"--url: {url!r} is not a server address such as http://127.0.0.1:3000: {problem}")


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener for `url` that uses the proxy of the environment, except for loopback addresses."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_local else []))


def _message(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.load(error)["error"]["message"])
        return f"{message}; --token-file names the file that has one" if error.code == 401 else message
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"
