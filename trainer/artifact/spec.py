"""The artifact: a folder with the frozen network and `spec.json`, which says what it is and guards every file.

model.tflite       what is served by default: `images` uint8 [N,H,W,C] → `probabilities` float32 [N,K] and, where the
                   network has features, `novelty` float32 [N]
explain.tflite     of a network that pools its features: `images` → what each place adds to the logits: [N,h,w,K]
saved_model/       the same network for TensorFlow, signature `serving_default`
report/            pictures, and report.html
data_identity.npz  what the network learned from and what was held out, by hashes of the pictures
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

FORMAT = 2
READ_FORMATS = (1, 2)
SPEC_FILE = "spec.json"
MODEL_FILE = "model.tflite"
EXPLAIN_FILE = "explain.tflite"
SAVED_MODEL = "saved_model"
# What every spec has, as JSON; of the first format, what ADDED names was not there.
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
ADDED = ("temperature", "threshold")
# Files that others write: the spec cannot hold its own hash, and the model store adds model.yaml.
UNHASHED = (SPEC_FILE, "model.yaml")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact."""

    path: Path
    class_names: tuple[str, ...]  # in the order of the probabilities
    pixels: PixelSpec
    quantization: str  # of model.tflite: int8 | float32
    temperature: float | None  # by which the logits are divided in the network; None: an old artifact, which has none
    threshold: float | None  # the probability from which on an answer is known; None: an old artifact
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
    """Write `spec.json` for the files that lie in `folder` now, atomically.

    Raises ValueError for values that JSON does not have, such as NaN.
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
    text = json.dumps(spec, indent=1, ensure_ascii=False, allow_nan=False)
    # Beside the folder: a leftover must not be hashed.
    write_text(folder / SPEC_FILE, text + "\n", draft=folder.parent / f".{folder.name}.{SPEC_FILE}")


def read_spec(folder: Path) -> dict[str, Any]:
    """`spec.json` as it stands; no file is verified. Raises ArtifactError where it is missing or damaged."""
    file = folder / SPEC_FILE
    try:
        spec = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no artifact: it has no {SPEC_FILE}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: cannot be read: {error}") from error
    if not isinstance(spec, dict) or spec.get("format") not in READ_FORMATS:
        found = spec.get("format") if isinstance(spec, dict) else type(spec).__name__
        readable = " or ".join(map(str, READ_FORMATS))
        raise ArtifactError(f"{file}: format {found!r} is not {readable}, which this version reads")
    keys = {key: kind for key, kind in KEYS.items() if spec["format"] == FORMAT or key not in ADDED}
    damaged = [key for key, kind in keys.items() if key not in spec or not isinstance(spec[key], kind)]
    if damaged:
        raise ArtifactError(f"{file}: not as it was written: {', '.join(damaged)}")
    return spec


def load(folder: Path) -> Artifact:
    """Read an artifact after checking the hash of each of its files that is there; `model.tflite` must be.

    `explain.tflite` is there for some networks; `saved_model/`, `report/` and `data_identity.npz` stay out of an image.
    Raises ArtifactError.
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
        raise ArtifactError(f"{folder / SPEC_FILE}: not as it was written: {error!r}") from error
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
    """Every hashed file of the folder, as a relative path with `/`."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in UNHASHED)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
