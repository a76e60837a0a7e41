"""The artifact: a folder with the frozen network and `spec.json`, which describes it and has the sha256 of every file.

model.tflite       the network that is served by default: `images` uint8 [N,H,W,C] → `probabilities` float32 [N,K] and,
                   if the network has features, `novelty` float32 [N], the out-of-distribution score
explain.tflite     for a network that pools its features: `images` → contribution of each position to the logits,
                   float32 [N,h,w,K]
saved_model/       the same network for TensorFlow, signature `serving_default`
report/            figures and report.html
data_identity.npz  the data manifest: hashes of the training images and of the held-out images
reference.npz      a few validation images with the network's answers (see `reference.py`); older artifacts have none
spec.json          format 2: labels, pixels, temperature, threshold, dataset, config, metrics, versions and the sha256
                   of every file. Format 1, which is still read, has neither temperature nor threshold
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ArtifactError
from trainer.files import write_text
from trainer.images.pixels import PixelSpec
from trainer.text import printable_json

FORMAT = 2
READ_FORMATS = (1, 2)
SPEC_FILE = "spec.json"
MODEL_FILE = "model.tflite"
EXPLAIN_FILE = "explain.tflite"
SAVED_MODEL = "saved_model"
# Keys of every spec with their JSON types; format 1 lacks ADDED_KEYS.
KEYS: dict[str, type | tuple[type, ...]] = {
    "labels": list,
    "pixels": dict,
    "quantization": str,
    "temperature": (int, float),
    "threshold": (int, float),
    "dataset": str,
    "config": dict,
    "metrics": dict,
    "versions": dict,
    "git_revision": (str, type(None)),
    "files": dict,
}
ADDED_KEYS = ("temperature", "threshold")
# The spec cannot hold its own hash, and the model store adds model.yaml.
UNHASHED = (SPEC_FILE, "model.yaml")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact."""

    path: Path
    class_names: tuple[str, ...]  # in the order of the probabilities
    pixels: PixelSpec
    quantization: str  # of model.tflite: float32 | int8 | static-int8
    temperature: float | None  # the network divides its logits by it; None: format 1
    threshold: float | None  # lowest probability of a known answer; None: format 1
    dataset: str
    metrics: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str]
    git_revision: str | None

    @property
    def model_file(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def saved_model(self) -> Path:
        return self.path / SAVED_MODEL


def write_spec(
    folder: Path,
    *,
    class_names: Sequence[str],
    pixels: PixelSpec,
    dataset: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    quantization: str,
    temperature: float,
    threshold: float,
    versions: Mapping[str, str],
    git_revision: str | None,
) -> None:
    """Write `spec.json` atomically, for the files that are now in `folder`.

    Raises ValueError for values that JSON cannot hold, such as NaN.
    """
    spec = {
        "format": FORMAT,
        "labels": list(class_names),
        "pixels": pixels.to_dict(),
        "quantization": quantization,
        "temperature": temperature,
        "threshold": threshold,
        "dataset": dataset,
        "config": dict(config),
        "metrics": dict(metrics),
        "versions": dict(versions),
        "git_revision": git_revision,
        "files": {name: _sha256(folder / name) for name in _files(folder)},
    }
    text = printable_json(json.dumps(spec, indent=1, ensure_ascii=False, allow_nan=False))
    # The draft lies beside the folder: a leftover in it would be hashed.
    write_text(folder / SPEC_FILE, text + "\n", draft=folder.parent / f".{folder.name}.{SPEC_FILE}")


def read_spec(folder: Path) -> dict[str, Any]:
    """Read `spec.json` without verifying files. Raises ArtifactError if it is missing or damaged."""
    file = folder / SPEC_FILE
    try:
        spec = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: not an artifact: it has no {SPEC_FILE}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from error
    if not isinstance(spec, dict) or spec.get("format") not in READ_FORMATS:
        found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
        readable = " or ".join(map(str, READ_FORMATS))
        raise ArtifactError(f"{file}: format {found!r} is not {readable}, which this version reads")
    keys = {key: kind for key, kind in KEYS.items() if spec["format"] == FORMAT or key not in ADDED_KEYS}
    damaged = [key for key, kind in keys.items() if key not in spec or not isinstance(spec[key], kind)]
    if damaged:
        raise ArtifactError(f"{file}: damaged: {', '.join(damaged)} missing or of the wrong type")
    return spec


def load(folder: Path) -> Artifact:
    """Read an artifact and verify the hash of every file that is present; only `model.tflite` must be.

    Some networks have no `explain.tflite`; a container image lacks `saved_model/`, `report/`, `data_identity.npz` and
    `reference.npz`. Raises ArtifactError.
    """
    spec = read_spec(folder)
    try:
        files: dict[str, str] = spec["files"]
        artifact = Artifact(
            path=folder,
            class_names=tuple(spec["labels"]),
            pixels=PixelSpec.from_dict(spec["pixels"]),
            quantization=spec["quantization"],
            temperature=spec.get("temperature"),
            threshold=spec.get("threshold"),
            dataset=spec["dataset"],
            metrics=spec["metrics"],
            config=spec["config"],
            versions=spec["versions"],
            git_revision=spec["git_revision"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / SPEC_FILE}: damaged: {error!r}") from error
    present = _files(folder)
    if MODEL_FILE not in present:
        raise ArtifactError(f"{folder}: {MODEL_FILE} is missing")
    for name in present:
        if name not in files:
            raise ArtifactError(f"{folder / name}: does not belong to the artifact: {SPEC_FILE} has no hash for it")
        if _sha256(folder / name) != files[name]:
            raise ArtifactError(f"{folder / name}: is not the file that was saved: its sha256 differs")
    return artifact


def _files(folder: Path) -> list[str]:
    """Relative paths, with `/`, of the files that the spec has a hash for."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in UNHASHED)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
