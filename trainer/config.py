"""Every default of `trainer fit`, its validation, and the errors that become exit codes."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Normalize = Literal["none", "mnist"]
Optimizer = Literal["adamw", "adam", "sgd"]
Precision = Literal["float32", "bfloat16"]

# Far above what one machine trains in reasonable time: almost always a picture too large for a Dense layer.
MAX_PARAMETERS = 200_000_000


class TrainerError(Exception):
    """An error for people: one line that says what, where and what was expected."""

    exit_code = 1


class InputError(TrainerError):
    """The input or the configuration is wrong."""

    exit_code = 2


class RunError(TrainerError):
    """The run failed and can be resumed."""

    exit_code = 3


class Interrupted(TrainerError):
    """A signal ended the run after a checkpoint: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def choose(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise InputError, with the nearest names, unless `value` is one of `allowed`."""
    names = sorted(allowed)
    if value not in names:
        near = difflib.get_close_matches(value, names, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"{key}: {value!r} is not one of {', '.join(names)}{hint}")


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """`28` or `28x32` (height x width) → (height, width); None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match:
        raise InputError(f"--image-size: {text!r} is neither N nor HxW, for example 64 or 64x96")
    height = int(match[1])
    width = int(match[2] or height)
    if not (8 <= height <= 1024 and 8 <= width <= 1024):
        raise InputError(f"--image-size: {text!r} is out of range; each side is 8 to 1024")
    return height, width


@dataclass(frozen=True)
class FitConfig:
    """What `trainer fit` is asked to do. Raises InputError for a value out of range.

    The fields up to `limit` decide the result and enter `hash()`; the rest say where things go.
    """

    dataset: str
    model: str = "branched_cnn"
    image_size: tuple[int, int] | None = None  # (height, width); None: chosen from the data
    epochs: int = 5  # past five, MNIST gains less than the noise between seeds
    batch_size: int = 128  # the global batch, over all devices and workers
    learning_rate: float = 1e-3  # the peak, after warm-up
    optimizer: str = "adamw"
    weight_decay: float = 0.01  # decoupled; kernels only
    dropout: float = 0.4
    kernel_size: int = 3
    normalize: str = "auto"
    augment: str = "auto"
    class_weights: str = "none"
    precision: str = "auto"
    seed: int = 0
    limit: int | None = None  # caps the training images only
    name: str | None = None
    run_dir: Path | None = None
    resume: str = "auto"
    save: bool = True
    data_dir: Path | None = None
    wandb: str = "auto"

    # Sound defaults that are not options: a wall of switches helps nobody.
    warmup_fraction: float = 0.1  # of all steps, linear from 0 to the peak
    final_learning_rate: float = 0.01  # of the peak, where the cosine ends
    clip_norm: float = 1.0  # global gradient norm
    momentum: float = 0.9  # sgd only, Nesterov
    patience: int = 5  # epochs without a better validation accuracy before the run stops early
    steps_per_call: int = 20  # training steps in one call into the graph

    def __post_init__(self) -> None:
        choose("--optimizer", self.optimizer, ("adamw", "adam", "sgd"))
        choose("--normalize", self.normalize, ("auto", "none", "mnist"))
        choose("--augment", self.augment, ("auto", "none", "light", "strong"))
        choose("--class-weights", self.class_weights, ("none", "balanced"))
        choose("--precision", self.precision, ("auto", "float32", "bfloat16"))
        choose("--wandb", self.wandb, ("auto", "online", "offline", "disabled"))
        _in_range("--epochs", self.epochs, 1, 10_000)
        _in_range("--batch-size", self.batch_size, 1, 65_536)
        _in_range("--learning-rate", self.learning_rate, 1e-8, 10.0)
        _in_range("--weight-decay", self.weight_decay, 0.0, 1.0)
        _in_range("--dropout", self.dropout, 0.0, 0.95)
        _in_range("--kernel-size", self.kernel_size, 1, 11)
        _in_range("--seed", self.seed, 0, 2**31 - 1)
        if self.limit is not None:
            _in_range("--limit", self.limit, 1, 2**31 - 1)
        if self.name is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", self.name):
            raise InputError(
                f"--name: {self.name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', "
                "with a letter or digit at both ends"
            )

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, as plain JSON values."""
        places = {"name", "run_dir", "resume", "save", "data_dir", "wandb", "steps_per_call"}
        values = dataclasses.asdict(self)
        return {key: value for key, value in values.items() if key not in places}

    def command(self) -> list[str]:
        """`trainer fit` with what differs from the defaults, but for where the run goes."""
        options = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("run_dir", "resume", "save", "wandb") and getattr(self, field.name) != field.default
        }
        if self.image_size:
            options["image_size"] = "x".join(map(str, self.image_size))
        return ["trainer", "fit", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]

    def hash(self) -> str:
        """Names the configuration: runs with equal hashes may continue each other."""
        text = json.dumps(self.decisive(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{key}: {value} is out of range; {low:g} to {high:g} is expected")


def slug(text: str) -> str:
    """A model name made of `text`: only [a-z0-9._-], at most 63 characters, never empty."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:63].strip("._-")
    return cleaned or "model"
