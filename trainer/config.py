"""The configuration of a fit: every option of `trainer fit`, with its default and its help."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.names import check_slug
from trainer.option_fields import check_options, flag, option_field, options

# Far above what one machine trains in reasonable time: almost always an image too large for a Dense layer.
MAX_PARAMETERS = 200_000_000
MAX_TIME_S = 1000 * 3600
RUN_FOLDER_OPTIONS = ("run_dir", "resume")
MIN_STEPS_TO_LEARN = 200  # that a network with random weights needs; no run stops early before them


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


def parse_duration(text: str | None) -> float | None:
    """`90s`, `10m` or `1.5h` → seconds; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip().lower())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 1 <= seconds <= MAX_TIME_S:
        raise InputError(f"--time-limit: {text!r} is no duration; for example 90s, 10m or 1.5h, up to 1000h")
    return seconds


def _is_same_path(first: str | Path, second: str | Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _absolute(spec: str) -> str:
    """A data set's spec with its path resolved."""
    kind, colon, path = spec.partition(":")
    if kind in ("tfds", "builtin"):
        return spec
    if not colon or kind not in ("csv", "folder"):  # `folder:` may be left out
        kind, path = "folder", spec
    return f"{kind}:{os.path.realpath(os.path.expanduser(path))}"


@dataclass(frozen=True)
class Recipe:
    """Default hyper-parameters of an architecture."""

    epochs: int  # raised for small data sets, whose epochs have few steps
    batch_size: int  # global, over all devices and workers; lowered for small data sets
    learning_rate: float  # the peak, after warm-up
    optimizer: str = "adamw"
    weight_decay: float = 0.01  # decoupled; kernels only
    dropout: float = 0.4
    timed_epochs: int = 30  # at most, with a time limit and without --epochs
    default_augment: str = "light"  # for `--augment auto`
    # Momentum per step of the EMA of the weights, which is validated and exported; 0: the weights themselves.
    weight_average: float = 0.0


@dataclass(frozen=True)
class FitConfig:
    """Options of `trainer fit`. Raises InputError for a value out of range."""

    dataset: str = option_field(
        metavar="SPEC",
        positional=True,
        same=lambda first, second: _absolute(first) == _absolute(second),
        help="tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits.",
    )
    model: str = option_field(
        "auto",
        help="auto: branched_cnn for small gray images, efficientnet_lite0 (pretrained) for all others. Also "
        "efficientnet_lite2 (larger), compact_resnet or keras.applications:NAME.",
    )
    weights: str = option_field(
        "auto",
        choices=("auto", "none", "imagenet"),
        help="auto: pretrained for efficientnet_lite*. imagenet: also for keras.applications, which fetches them.",
    )
    start_from: str | None = option_field(
        None,
        metavar="MODEL",
        help="A stored version, NAME or NAME:VERSION, to go on from with the images as they are now; of a pretrained "
        "network the last layer, unless --fine-tune all.",
    )
    fine_tune: str = option_field(
        "auto",
        choices=("auto", "none", "all"),
        help="For a pretrained network: none trains its last layer only, in seconds; auto and all then the rest, too.",
    )
    time_limit: float | None = option_field(  # seconds
        None,
        metavar="TIME",
        low=1.0,
        high=MAX_TIME_S,
        parse=parse_duration,
        format=lambda seconds: f"{seconds:.15g}s",  # no exponent, which `parse` refuses
        help="For all of fit, such as 90s, 10m or 1h: the training is planned to end within it.",
    )
    image_size: tuple[int, int] | None = option_field(  # (height, width)
        None,
        metavar="N|HxW",
        parse=parse_image_size,
        format=lambda size: "x".join(map(str, size)),
        help="Default: 160 for efficientnet_lite0, 224 for lite2; for others the images' own size up to 64x64, or 64.",
    )
    resize: str = option_field(
        "stretch",
        choices=("stretch", "pad"),
        help="How an image takes the model's size: stretched, or in its own proportions, its edges continued.",
    )
    # From here to `dropout`, None stands for the architecture's `Recipe`, adapted to the amount of data.
    epochs: int | None = option_field(None, low=1, high=10_000, help="Passes over the training images.")
    batch_size: int | None = option_field(None, low=1, high=65_536, help="Images in a step, over all devices.")
    learning_rate: float | None = option_field(
        None, low=1e-8, high=10.0, help="The peak, after warm-up and before the cosine decay."
    )
    optimizer: str | None = option_field(None, choices=("adamw", "adam", "sgd"), help="{choices}.")
    weight_decay: float | None = option_field(None, low=0.0, high=1.0, help="For adamw and sgd.")
    dropout: float | None = option_field(
        None, low=0.0, high=0.95, help="Share of the network switched off in each step, {low:g} to {high:g}."
    )
    kernel_size: int = option_field(
        3, low=1, high=11, help="Side of the convolution kernels in pixels, where the model leaves it open."
    )
    normalize: str = option_field("auto", choices=("auto", "none", "mnist"), help="{choices}.")
    augment: str = option_field("auto", choices=("auto", "none", "light", "strong"), help="{choices}.")
    flip: str = option_field(
        "auto",
        choices=("auto", "on", "off"),
        help="Mirror images while training; auto finds out whether a mirrored image is of the same class.",
    )
    class_weights: str = option_field("none", choices=("none", "balanced"), help="{choices}.")
    precision: str = option_field("auto", choices=("auto", "float32", "bfloat16"), help="{choices}.")
    quantize: str = option_field(
        "auto",
        choices=("auto", "none", "int8", "static-int8"),
        help="8-bit weights (int8), 8-bit activations as well (static-int8); auto: the fastest file that is as good.",
    )
    confidence: float = option_field(
        0.95,
        low=0.0,
        high=1.0,
        help="Wanted share of correct answers among those marked known, measured on validation, {low:g} to {high:g}.",
    )
    seed: int = option_field(
        0, low=0, high=2**31 - 1, help="Seed of the weights, the augmentation, and the images that --limit draws."
    )
    limit: int | None = option_field(None, low=1, high=2**31 - 1, help="At most this many training images.")
    run_dir: Path | None = option_field(
        None,
        help="Default: runs/$WANDB_RUN_ID, else runs/NAME-TIMESTAMP.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    resume: str = option_field(
        "auto",
        metavar="never|auto|RUN_DIR",
        help="auto continues an unfinished run of this configuration, RUN_DIR that run, with its own options.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    name: str | None = option_field(
        None, check=check_slug, help="The model's name (default: the data set's).", affects_result=False
    )
    save: bool = option_field(
        True, help="Publish the model to the BentoML store at the end.", affects_result=False, repeated=False
    )
    promote: bool = option_field(
        False,
        help="Serve the new version from now on, even if it is no better than guessing, worse, or lacks a class.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    data_dir: Path | None = option_field(
        None,
        help="Where prepared TFDS data sets lie (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets).",
        affects_result=False,
    )
    wandb: str = option_field(
        "auto",
        choices=("auto", "online", "offline", "disabled"),
        help="{choices}.",
        affects_result=False,
        repeated=False,
    )

    # Settings that are no options, as their defaults are sound for all models.
    warmup_fraction: float = 0.1  # of all steps, linear from 0 to the peak
    final_learning_rate: float = 0.01  # of the peak, where the cosine ends
    clip_norm: float = 1.0  # global gradient norm
    momentum: float = 0.9  # sgd only, Nesterov
    patience: int = 5  # epochs without a better validation accuracy before the run stops early, at least

    def __post_init__(self) -> None:
        check_options(self)
        if self.promote and not self.save:
            raise InputError("--promote: with --no-save there is no version to promote; leave one out")
        if self.run_dir and self.resume not in ("auto", "never") and not _is_same_path(self.run_dir, self.resume):
            raise InputError(f"--run-dir: --resume {self.resume} is another run folder; leave one out")

    def recipe(self, default: Recipe) -> Recipe:
        """The architecture's recipe, overridden by the options that are given."""
        given = {field.name: getattr(self, field.name, None) for field in dataclasses.fields(Recipe)}
        return dataclasses.replace(default, **{name: value for name, value in given.items() if value is not None})

    def result_settings(self) -> dict[str, Any]:
        """The settings that affect the result, as plain JSON values."""
        without_effect = {name for name, option in options(self).items() if not option.affects_result}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in without_effect}

    def changed_options(self) -> dict[str, str]:
        """The options that differ from their defaults, as the command line spells them, without the run folder."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: option.format(getattr(self, name))
            for name, option in options(self).items()
            if name not in RUN_FOLDER_OPTIONS and getattr(self, name) != defaults[name]
        }

    def command(self) -> list[str]:
        """The `trainer fit` command that trains the same again, in another run folder."""
        known = options(self)
        changed = [f"{flag(name)}={text}" for name, text in self.changed_options().items() if known[name].repeated]
        return ["trainer", "fit", *changed]

    def hash(self) -> str:
        """Hash of the settings that affect the result; runs of equal hashes may continue each other."""
        text = json.dumps(self.result_settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
