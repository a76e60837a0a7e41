"""Settings of a fit: its configuration, resolved once for a data set; used by fit, a sweep's trials and the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainer.config import FitConfig, Recipe
from trainer.data import Dataset, load
from trainer.errors import InputError
from trainer.models import AUTO, Architecture, choose_architecture, find_architecture
from trainer.names import slug
from trainer.training.earlier import Earlier
from trainer.training.plan import Plan, make_plan
from trainer.training.unused_options import refuse_unused_options

log = logging.getLogger("trainer")

# Options that are not in the identity: other entries cover the first four, and the rest do not change how the network
# learns.
NOT_IN_IDENTITY = ("image_size", "resize", "normalize", "timed_epochs", "time_limit", "quantize", "confidence")


@dataclass(frozen=True)
class FitSettings:
    """Everything that is decided before the training."""

    config: FitConfig
    name: str  # the model's
    architecture: Architecture
    recipe: Recipe
    plan: Plan
    identity: Mapping[str, Any]  # everything that must match to resume a run; plain JSON values
    earlier: Earlier | None = None  # the version that the training goes on from

    @property
    def pretrained(self) -> bool:
        """Whether the network has pretrained features, on which a linear probe is fitted first."""
        return self.architecture.features is not None


def load_dataset(config: FitConfig, earlier: Earlier | None = None) -> Dataset:
    """The data set of a configuration, decoded as its network needs it. Raises InputError.

    Images that an `earlier` version learned from are training images, whichever split they are in now.
    """
    return load(
        config.dataset,
        image_size=config.image_size,
        resize=config.resize,
        normalize=resolve_normalization(config),
        pixels=earlier.artifact.pixels if earlier else None,
        trained=earlier.manifest.trained if earlier else None,
        input_preference=lambda sizes: choose_architecture(config, sizes, "none").input_preference,
        data_dir=config.data_dir,
        seed=config.seed,
        limit=config.limit,
    )


def resolve_normalization(config: FitConfig) -> str:
    """Value of `--normalize`; `auto` becomes `none` if the network takes colour only, else the data set resolves it.

    Raises InputError for `mnist`, which makes gray images, with a network that takes colour only.
    """
    colour_only = (
        config.model != AUTO and find_architecture(config.model, config.weights).input_preference.channels == 3
    )
    if config.normalize == "mnist" and colour_only:
        raise InputError(
            f"--normalize mnist: makes gray images, and --model {config.model} takes colour; leave one out"
        )
    return "none" if config.normalize == "auto" and colour_only else config.normalize


def resolve(config: FitConfig, dataset: Dataset, replicas: int = 1, earlier: Earlier | None = None) -> FitSettings:
    """The settings for `dataset` on `replicas` devices, from the beginning or from the `earlier` version on.

    Raises InputError for an unknown model, an option that the model's training would ignore, or a batch that the
    devices cannot share evenly.
    """
    architecture = choose_architecture(config, dataset.train.cache.sizes.keys(), dataset.pixels.normalize)
    if config.model == AUTO:
        why = "not small and gray" if architecture.features else "small and gray, or normalized as MNIST's"
        log.info("--model auto is %s: the images are %s", architecture.name, why)
    if earlier:
        earlier.check_classes(dataset.class_names)
        architecture = earlier.adapt(architecture)
    recipe = config.recipe(architecture.recipe)
    refuse_unused_options(config, architecture, recipe)
    plan = make_plan(config, recipe, len(dataset.train), replicas)
    identity = _identity(config, dataset, architecture, recipe, plan)
    if config.fine_tune == "none" and architecture.features:
        plan = plan.within(0)
    return FitSettings(config, config.name or slug(dataset.name), architecture, recipe, plan, identity, earlier)


def _identity(
    config: FitConfig, dataset: Dataset, architecture: Architecture, recipe: Recipe, plan: Plan
) -> dict[str, Any]:
    """Everything that must match to resume a run: the data, its splits, the network, and how it is trained.

    Options have their resolved values, so that an option that names its default does not change the identity.
    """
    settings = config.result_settings() | asdict(recipe)
    for name in NOT_IN_IDENTITY:
        del settings[name]
    return settings | {
        "dataset": dataset.spec,
        "fingerprint": dataset.fingerprint,
        "labels": list(dataset.class_names),
        "input": dataset.pixels.to_dict(),
        "model": architecture.name,
        "batch_size": plan.batch_size,
        "epochs": plan.epochs,
    }
