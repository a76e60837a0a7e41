"""Advice rules about the training: its length, its learning rate, its network and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trainer.config import MIN_STEPS_TO_LEARN, FitConfig
from trainer.reporting.advice.facts import MIN_MISTAKES, Advice, Facts, Proportion, TrainingFacts
from trainer.reporting.advice.verdict import in_100
from trainer.reporting.metrics import accuracy_interval
from trainer.text import counted

MIN_LOSS_DECREASE = 0.05  # of the validation loss, over the last quarter of the epochs; less is the noise of an epoch
# Options that suit one network and not another: the advised command sets them back to their defaults.
NETWORK_OPTIONS = (
    *("model", "weights", "image_size", "epochs", "batch_size", "learning_rate", "optimizer", "weight_decay"),
    *("dropout", "kernel_size", "start_from"),
)
NETWORK_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(FitConfig) if field.name in NETWORK_OPTIONS
}


def learned_nothing(facts: Facts) -> Advice | None:
    """The network ended no better than guessing on its training images, after enough steps.

    Earlier epochs do not count: while the learning rate still rose, the network may have learned something and lost it.
    """
    run = facts.training
    if not run or not run.epochs or run.steps < MIN_STEPS_TO_LEARN:
        return None
    guess = run.images_per_class.max() / run.images
    if accuracy_interval(run.epochs[-1]["accuracy"], run.images)[0] > guess:
        return None
    return Advice(
        f"use a smaller learning rate than {run.learning_rate:g}: after {counted(len(run.epochs), 'epoch')} it is no "
        "better than guessing, even on the images that it learned from",
        run.command(learning_rate=_smaller_rate(run)),
    )


def too_few_steps(facts: Facts) -> Advice | None:
    """A network with random weights was trained for fewer steps than any default gives."""
    run = facts.training
    if not run or run.pretrained or run.config.start_from or run.steps >= MIN_STEPS_TO_LEARN or not facts.can_improve:
        return None
    if better := not_pretrained(facts):
        return better  # a pretrained network needs far fewer steps
    limit = run.config.time_limit
    longer = limit and limit * max(2, round(MIN_STEPS_TO_LEARN / max(1, run.steps)))
    return Advice(
        f"train longer: a network that starts from nothing needs at least {MIN_STEPS_TO_LEARN} steps, and had "
        f"{run.steps}",
        run.command(epochs=None, batch_size=None, time_limit=longer),
    )


def training_made_worse(facts: Facts) -> Advice | None:
    """Each epoch left a pretrained network worse than it was before the first, beyond chance."""
    run = facts.training
    if not run or not facts.val or not run.epochs or run.best["epoch"] >= 1:
        return None
    head = Proportion.of(run.best["val_accuracy"], facts.val.total)
    after = Proportion.of(max(entry["val_accuracy"] for entry in run.epochs), facts.val.total)
    if not after.surely_below(head):
        return None
    return Advice(
        f"use a smaller learning rate than {run.learning_rate:g}: before the first epoch {in_100(head.share)} in 100 "
        f"validation images were named right, and at most {in_100(after.share)} after one: those were not kept",
        run.command(learning_rate=_smaller_rate(run)),
    )


def not_pretrained(facts: Facts) -> Advice | None:
    """The network started from random weights where `--model auto` takes a pretrained one."""
    run = facts.training
    if not run or run.pretrained or not run.auto_is_pretrained or not facts.can_improve:
        return None
    return Advice(
        "use --model auto: its network has learned from a million photos before, and this one started from nothing",
        run.command(**NETWORK_DEFAULTS),
    )


def head_only(facts: Facts) -> Advice | None:
    """`--fine-tune none` trained only the last layer of a pretrained network."""
    run = facts.training
    if not run or run.config.fine_tune != "none" or not run.pretrained or not facts.can_improve:
        return None
    return Advice(
        "train the whole network: with --fine-tune none its last layer alone has learned from your images",
        run.command(fine_tune="all" if run.config.start_from else "auto"),
    )


def limited(facts: Facts) -> Advice | None:
    """`--limit` left training images out."""
    run = facts.training
    if not run or not run.limited or not facts.can_improve:
        return None
    images = counted(run.limited, "training image")
    return Advice(f"use all images: --limit left {images} out", run.command(limit=None))


def cut_short(facts: Facts) -> Advice | None:
    """The time limit ended the training before the network had seen every image."""
    run = facts.training
    if not run or run.end != "no time" or run.steps >= run.steps_per_epoch or not facts.can_improve:
        return None
    limit, seen = run.config.time_limit, in_100(run.steps / run.steps_per_epoch)
    return Advice(
        f"train longer: there was time for {seen} in 100 of the training images, once",
        run.command(time_limit=limit and 2 * limit),
    )


def still_improving(facts: Facts) -> Advice | None:
    """The last epoch was the best, and the validation loss fell until then."""
    run = facts.training
    if not run or run.end == "no better" or len(run.history) < 2 or cut_short(facts):
        return None
    last, earlier = run.history[-1], run.history[-1 - max(1, len(run.history) // 4)]
    improved = last["val_loss"] < (1 - MIN_LOSS_DECREASE) * earlier["val_loss"]
    if run.best is not last or not improved or 1 - last["val_accuracy"] < MIN_MISTAKES:
        return None
    limit = run.config.time_limit
    epochs = None if run.end == "no time" else 2 * len(run.epochs)
    return Advice(
        "train longer: the last epoch was the best, and the validation loss was still falling "
        f"({earlier['val_loss']:.2f} {_when(earlier)}, {last['val_loss']:.2f} at the end)",
        run.command(time_limit=limit and 2 * limit, epochs=epochs or run.config.epochs),
    )


def stopped_early(facts: Facts) -> Advice | None:
    """Validation no longer improved."""
    run = facts.training
    if not run or run.end != "no better" or not facts.can_improve:
        return None
    best = f"in epoch {run.best['epoch']:.0f}" if run.best["epoch"] else "before the first"
    return Advice(
        f"more epochs do not help: validation was best {best} of {counted(len(run.epochs), 'epoch')}; another learning "
        "rate may",
        run.command(learning_rate=_rounded(run.learning_rate / 3)),
    )


def _smaller_rate(run: TrainingFacts) -> float | None:
    """A tenth of the learning rate; None (the default) if the architecture's default rate is no larger than that."""
    tenth = _rounded(run.learning_rate / 10)
    return tenth if tenth < run.usual_learning_rate else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def _when(entry: Mapping[str, float]) -> str:
    return f"in epoch {entry['epoch']:.0f}" if entry["epoch"] else "before the first epoch"
