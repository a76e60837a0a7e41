"""`trainer predict` and `explain`: predictions for image files. Never imports TensorFlow."""

from __future__ import annotations

import collections
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import artifact
from trainer.artifact import Artifact, store
from trainer.artifact.engine import Engine, load_engine
from trainer.artifact.explain import explain, load_activation_engine
from trainer.artifact.prediction import prediction
from trainer.errors import ImageError, InputError
from trainer.images.decode import decode
from trainer.images.encode import encode_png
from trainer.images.pixels import PixelSpec
from trainer.images.saliency import overlay

TIMEOUT_S = 30  # for a connection and for each read


def predict_local(model: str, paths: Sequence[Path]) -> Iterator[dict[str, Any] | InputError]:
    """Predict image files with a stored model, in order: the HTTP prediction plus `path`, or the error of the file."""
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    engine = load_engine(loaded)
    for read in _read_images(paths, loaded.pixels):
        yield read if isinstance(read, InputError) else _predict(stored.tag, loaded, engine, *read)


def explain_local(model: str, paths: Sequence[Path], output: Path | None) -> Iterator[dict[str, Any] | InputError]:
    """Predict image files and write a PNG for each: the model's input in gray under the saliency map of its answer.

    The prediction has the path of the PNG as `explanation`: NAME.explained.png in the folder `output` (default: the
    current folder), numbered if NAME occurs again. For one image, `output` may name the file.
    Raises InputError if the PNG cannot be written.
    """
    to_file = output is not None and output.suffix == ".png" and not output.is_dir()
    if to_file and len(paths) > 1:
        raise InputError(f"--output: {output} is one file, and there are {len(paths)} images; name a folder")
    stored = store.find(model)
    loaded = artifact.load(stored.path)
    engine, activation = load_engine(loaded), load_activation_engine(stored.path)
    uses: collections.Counter[str] = collections.Counter()  # of each NAME: files in several folders may share it
    for read in _read_images(paths, loaded.pixels):
        if isinstance(read, InputError):
            yield read
            continue
        path, image = read
        answer = _predict(stored.tag, loaded, engine, path, image)
        saliency = explain(image, answer["index"], engine, activation)
        uses[path.stem] += 1
        name = f"{path.stem}-{uses[path.stem]}" if uses[path.stem] > 1 else path.stem
        file = output if output and to_file else (output or Path()) / f"{name}.explained.png"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_png(overlay(image, saliency)))
        except OSError as error:
            raise InputError(f"--output: {file} cannot be written: {error.strerror}") from error
        yield answer | {"explanation": str(file)}


def predict_remote(url: str, paths: Sequence[Path], token: str = "") -> Iterator[dict[str, Any] | InputError]:
    """Predict image files with the server at `url`, with a bearer token unless empty.

    `url` may leave out http://. Raises InputError if no server answers there.
    """
    url = _complete(url)
    opener = _opener(url)
    for path in paths:
        try:
            request = urllib.request.Request(f"{url}/predict", data=_read(path), method="POST")
            request.add_header("Content-Type", "application/octet-stream")
            if token:
                # Not sent to another server after a redirect.
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            with opener.open(request, timeout=TIMEOUT_S) as response:
                yield json.load(response) | {"path": str(path)}
        except urllib.error.HTTPError as error:
            yield InputError(f"{path}: {_message(error)}")
        except InputError as error:
            yield error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InputError(f"--url: no answer from {url}: {getattr(error, 'reason', error)}") from error


def _read_images(paths: Sequence[Path], pixels: PixelSpec) -> Iterator[tuple[Path, NDArray[np.uint8]] | InputError]:
    """Each path with its image uint8 [H,W,C], or the error of the file."""
    for path in paths:
        try:
            yield path, decode(_read(path), pixels)
        except ImageError as error:
            yield InputError(f"{path}: {error}")
        except InputError as error:
            yield error


def _predict(tag: str, loaded: Artifact, engine: Engine, path: Path, image: NDArray[np.uint8]) -> dict[str, Any]:
    output = {name: rows[0] for name, rows in engine.predict(image[None]).items()}
    return prediction(output, loaded.class_names, loaded.threshold) | {"model": tag, "path": str(path)}


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
