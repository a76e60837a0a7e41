"""Every option of `trainer fit`, said once; and the errors that become exit codes.

Longer than other files, as each option stands here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.option_fields import check_options, flag, option, options

# Far above what one machine trains in reasonable time: almost always a picture too large for a Dense layer.
MAX_PARAMETERS = 200_000_000
MAX_TIME_S = 1000 * 3600
PLACE = ("run_dir", "resume")  # the options that say where a run goes


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


@dataclass(frozen=True)
class Recipe:
    """How a network is trained where nothing else is said; each architecture has its own."""

    epochs: int  # more where little data makes few steps of them
    batch_size: int  # the global batch, over all devices and workers; smaller where there is little data
    learning_rate: float  # the peak, after warm-up
    optimizer: str = "adamw"
    weight_decay: float = 0.01  # decoupled; kernels only
    dropout: float = 0.4
    timed_epochs: int = 30  # at most, where a time limit is given and no epochs
    default_augment: str = "light"  # what `--augment auto` is
    # Momentum, for each step, of the average of the weights that is validated and exported; 0: the weights themselves.
    weight_average: float = 0.0


def check_name(name: str) -> None:
    """Raise InputError unless `name` can be a model's."""
    if slug(name) != name:
        raise InputError(
            f"--name: {name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit at both ends"
        )


@dataclass(frozen=True)
class FitConfig:
    """What `trainer fit` is asked to do. Raises InputError for a value out of range."""

    dataset: str = option(
        metavar="SPEC", first=True, help="tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits."
    )
    model: str = option(
        "auto",
        help="auto: branched_cnn for small gray images, efficientnet_lite0 (pretrained) for all others. Also "
        "compact_resnet or keras.applications:NAME.",
    )
    weights: str = option(
        "auto",
        choices=("auto", "none", "imagenet"),
        help="auto: pretrained for efficientnet_lite0. imagenet: also for keras.applications, which fetches them.",
    )
    fine_tune: str = option(
        "auto",
        choices=("auto", "none", "all"),
        help="Of a pretrained network: none trains its last layer only, in seconds; auto and all go on with the rest.",
    )
    time_limit: float | None = option(  # seconds
        None,
        metavar="TIME",
        parse=parse_duration,
        spell=lambda seconds: f"{seconds:g}s",
        help="For all of fit, such as 90s, 10m or 1h: the training is planned to end within it.",
    )
    image_size: tuple[int, int] | None = option(  # (height, width)
        None,
        metavar="N|HxW",
        parse=parse_image_size,
        spell=lambda size: "x".join(map(str, size)),
        help="Default: 160 for efficientnet_lite0; for others the images' own size up to 64x64, or 64.",
    )
    # From here to `dropout`, None is what suits the model and the amount of data: see `Recipe`.
    epochs: int | None = option(None, low=1, high=10_000, help="Passes over the training images.")
    batch_size: int | None = option(None, low=1, high=65_536, help="Images in a step, over all devices.")
    learning_rate: float | None = option(
        None, low=1e-8, high=10.0, help="The peak, after warm-up and before the cosine decay."
    )
    optimizer: str | None = option(None, choices=("adamw", "adam", "sgd"), help="{choices}.")
    weight_decay: float | None = option(None, low=0.0, high=1.0, help="For adamw and sgd.")
    dropout: float | None = option(
        None, low=0.0, high=0.95, help="Share of the network switched off in each step, {low:g} to {high:g}."
    )
    kernel_size: int = option(3, low=1, high=11, help="Of the convolutions, in pixels, but for pretrained networks.")
    normalize: str = option("auto", choices=("auto", "none", "mnist"), help="{choices}.")
    augment: str = option("auto", choices=("auto", "none", "light", "strong"), help="{choices}.")
    flip: str = option(
        "auto",
        choices=("auto", "on", "off"),
        help="Mirror images while training; auto finds out whether a mirrored image is of the same class.",
    )
    class_weights: str = option("none", choices=("none", "balanced"), help="{choices}.")
    precision: str = option("auto", choices=("auto", "float32", "bfloat16"), help="{choices}.")
    quantize: str = option(
        "auto",
        choices=("auto", "none", "int8"),
        help="auto serves 8-bit weights where they are as good and faster.",
    )
    confidence: float = option(
        0.95,
        low=0.0,
        high=1.0,
        help="Share of the answers called known that are to be right, as validation tells, {low:g} to {high:g}.",
    )
    seed: int = option(0, low=0, high=2**31 - 1, help="Of the weights, the augmentation, and what --limit draws.")
    limit: int | None = option(None, low=1, high=2**31 - 1, help="At most this many training images.")
    run_dir: Path | None = option(
        None,
        help="Default: runs/$WANDB_RUN_ID, else runs/NAME-TIMESTAMP.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    resume: str = option(
        "auto",
        metavar="never|auto|RUN_DIR",
        help="auto continues an unfinished run of this configuration, RUN_DIR that run, with its own options.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    name: str | None = option(
        None, check=check_name, help="The model's name (default: the data set's).", affects_result=False
    )
    save: bool = option(
        True, help="Publish the model to the BentoML store at the end.", affects_result=False, repeated=False
    )
    promote: bool = option(
        False,
        help="Make the new model the one that is served, although it guesses, is worse, or has lost a class.",
        affects_result=False,
        searchable=False,
        repeated=False,
    )
    data_dir: Path | None = option(
        None,
        help="Where prepared TFDS data sets lie (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets).",
        affects_result=False,
    )
    wandb: str = option(
        "auto",
        choices=("auto", "online", "offline", "disabled"),
        help="{choices}.",
        affects_result=False,
        repeated=False,
    )

    # Sound defaults that are not options: a wall of switches helps nobody.
    warmup_fraction: float = 0.1  # of all steps, linear from 0 to the peak
    final_learning_rate: float = 0.01  # of the peak, where the cosine ends
    clip_norm: float = 1.0  # global gradient norm
    momentum: float = 0.9  # sgd only, Nesterov
    patience: int = 5  # epochs without a better validation accuracy before the run stops early, at least

    def __post_init__(self) -> None:
        check_options(self)
        if self.promote and not self.save:
            raise InputError("--promote: with --no-save there is no version to promote; leave one out")

    def recipe(self, default: Recipe) -> Recipe:
        """The architecture's recipe, with what is asked for in its place."""
        asked = {field.name: getattr(self, field.name, None) for field in dataclasses.fields(Recipe)}
        return dataclasses.replace(default, **{name: value for name, value in asked.items() if value is not None})

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, as plain JSON values."""
        places = {name for name, one in options(self).items() if not one.affects_result}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in places}

    def changed(self) -> dict[str, str]:
        """The options that differ from their defaults, as the command line spells them; but for where the run goes."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {
            name: one.spell(getattr(self, name))
            for name, one in options(self).items()
            if name not in PLACE and getattr(self, name) != defaults[name]
        }

    def command(self) -> list[str]:
        """`trainer fit` with what differs from the defaults, but for where the run goes."""
        known = options(self)
        changed = [f"{flag(name)}={text}" for name, text in self.changed().items() if known[name].repeated]
        return ["trainer", "fit", *changed]

    def hash(self) -> str:
        """Names the configuration: runs with equal hashes may continue each other."""
        text = json.dumps(self.decisive(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def slug(text: str) -> str:
    """A model name made of `text`: only [a-z0-9._-], at most 63 characters, never empty."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:63].strip("._-")
    return cleaned or "model"
