"""`trainer predict`: image files through a stored model or a running server. Never imports TensorFlow."""

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

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import load_engine
from trainer.artifact.prediction import prediction
from trainer.config import InputError
from trainer.images.decode import decode
from trainer.images.pixels import ImageError

TIMEOUT_S = 30


def predict_local(model: str, paths: Sequence[Path]) -> Iterator[dict[str, Any] | InputError]:
    """The HTTP prediction plus `path` for each file, in order, or what is wrong with it."""
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    engine = load_engine(loaded)
    for path in paths:
        try:
            image = decode(_read(path), loaded.pixels)
        except ImageError as error:
            yield InputError(f"{path}: {error}")
        except InputError as error:
            yield error
        else:
            output = {name: rows[0] for name, rows in engine.predict(image[None]).items()}
            yield prediction(output, loaded.labels, loaded.threshold) | {"model": stored.tag, "path": str(path)}


def predict_remote(url: str, paths: Sequence[Path], token: str = "") -> Iterator[dict[str, Any] | InputError]:
    """The same from the server at `url`, with a bearer token if it wants one. Raises InputError where nothing answers
    there.
    """
    opener = _opener(url)
    for path in paths:
        try:
            request = urllib.request.Request(f"{url.rstrip('/')}/predict", data=_read(path), method="POST")
            request.add_header("Content-Type", "application/octet-stream")
            if token:
                request.add_unredirected_header("Authorization", f"Bearer {token}")  # for this server and no other
            with opener.open(request, timeout=TIMEOUT_S) as response:
                yield json.load(response) | {"path": str(path)}
        except urllib.error.HTTPError as error:
            yield InputError(f"{path}: {_message(error)}")
        except InputError as error:
            yield error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(f"--url: no answer from {url}: {getattr(error, 'reason', error)}") from error


def _opener(url: str) -> urllib.request.OpenerDirector:
    """What asks the server at `url`: through the proxy of the environment, but for this machine's own address."""
    try:
        address = urllib.parse.urlsplit(url)
        host, _ = address.hostname or "", address.port  # a port that is no number is found here
    except ValueError as error:
        raise InputError(f"--url: {url!r} is no address of a server, such as http://127.0.0.1:3000: {error}") from error
    try:
        own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = host == "localhost" or host.endswith(".localhost")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if own else []))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _message(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.load(error)["error"]["message"])
        return f"{message}; --token-file names the file that has one" if error.code == 401 else message
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"
