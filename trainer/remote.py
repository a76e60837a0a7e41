"""Client of a running server. Its methods may be called from several threads."""

from __future__ import annotations

import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from trainer.errors import InputError, ResponseError

TIMEOUT_S = 30  # for a connection and for each read


class Server:
    """The server at `url`, which may leave out http://; asked with a bearer token unless that is empty.

    Raises InputError for a malformed `url`.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = _complete(url)
        self._token = token
        self._opener = _opener(self.url)

    def predict(self, image: bytes) -> dict[str, Any]:
        """The prediction of the HTTP contract for an encoded image."""
        return self._ask("/predict", image)

    def model(self) -> dict[str, Any]:
        """The description of the model that answers, as GET /model has it."""
        return self._ask("/model")

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Body of the response. Raises ResponseError for an error, InputError if no server answers there."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, method="GET" if body is None else "POST")
        request.add_header("Content-Type", "application/octet-stream")
        if self._token:
            # Not sent to another server after a redirect.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                value: dict[str, Any] = json.load(response)
                return value
        except urllib.error.HTTPError as error:
            raise ResponseError(error.code, _message(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(f"--url: no answer from {self.url}: {getattr(error, 'reason', error)}") from error


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
