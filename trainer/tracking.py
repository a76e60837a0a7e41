"""Weights & Biases, the only importer of wandb. A tracking server that fails never stops or fails a run."""

from __future__ import annotations

import logging
import os
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.metrics import Evaluation
from trainer.report import Mistake

log = logging.getLogger("trainer")

INIT_TIMEOUT_S = 20
PROJECT = "trainer"


class Tracker:
    """One W&B run, or nothing where `run` is None. Every failure of W&B's is logged once and then ignored."""

    def __init__(self, run_id: str, run: Any = None) -> None:
        self.id = run_id
        self._run = run
        self._warned = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics at a training step."""
        self._safely(lambda: self._run.log(dict(values), step=step))

    def log_report(
        self, pictures: Mapping[str, Path], mistakes: Sequence[Mistake], labels: Sequence[str], evaluation: Evaluation
    ) -> None:
        """The report: its pictures, per-class accuracy, the confusion matrix and the worst mistakes."""
        self._safely(lambda: self._log_report(pictures, mistakes, labels, evaluation))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Final values, which W&B's tables show."""
        self._safely(lambda: self._run.summary.update(dict(values)))

    def finish(self, exit_code: int, error: str | None = None) -> None:
        """End the run; a failed one keeps its reason in the summary under `error`."""
        if error is not None:
            self.summary({"error": error})
        self._safely(lambda: self._run.finish(exit_code=exit_code))

    def _log_report(
        self, pictures: Mapping[str, Path], mistakes: Sequence[Mistake], labels: Sequence[str], evaluation: Evaluation
    ) -> None:
        import wandb

        confusion = wandb.Table(columns=["truth", *labels])
        for label, row in zip(labels, evaluation.confusion.tolist(), strict=True):
            confusion.add_data(label, *row)
        classes = wandb.Table(columns=["class", "images", "accuracy", "precision"])
        for label, row, recall, precision in zip(
            labels, evaluation.confusion, evaluation.recall.tolist(), evaluation.precision.tolist(), strict=True
        ):
            classes.add_data(label, int(row.sum()), recall, precision)
        worst = wandb.Table(columns=["image", "truth", "prediction", "probability"])
        for mistake in mistakes:
            image = mistake.image[:, :, 0] if mistake.image.shape[2] == 1 else mistake.image
            worst.add_data(
                wandb.Image(image), labels[mistake.true], labels[mistake.predicted], float(mistake.probability)
            )
        images = {f"report/{name}": wandb.Image(str(path)) for name, path in pictures.items()}
        tables = {"confusion_matrix": confusion, "per_class_accuracy": classes, "worst_mistakes": worst}
        self._run.log({**tables, **images})

    def _safely(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:  # whatever W&B raises: the run is worth more than its record
            if not self._warned:
                self._warned = True
                log.warning("W&B failed and is ignored from here on: %s", error)


def start(
    mode: str, *, config: Mapping[str, Any], run_dir: Path, name: str, run_id: str | None, resume: bool
) -> Tracker:
    """Start (or with `resume` go on with) a run in `mode`: auto, online, offline or disabled.

    `auto` is $WANDB_MODE where it is set, else online where there is an API key, else offline. Online falls back to
    offline where the server does not answer.
    """
    identifier = run_id or "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"
    if mode == "disabled":
        return Tracker(identifier)
    try:
        import wandb

        resolved = ("online" if _has_key() else "offline") if mode == "auto" else mode
        settings = wandb.Settings(
            init_timeout=INIT_TIMEOUT_S, console="off", silent=True, disable_git=True, save_code=False
        )
        folder = os.environ.get("WANDB_DIR") or str(run_dir)
        Path(folder).mkdir(parents=True, exist_ok=True)

        def init(how: Any) -> Any:
            return wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                dir=folder,
                id=identifier,
                name=name,
                mode=how,
                resume="allow" if resume or run_id else None,
                settings=settings,
            )

        try:
            run = init(resolved)
        except Exception as error:
            if resolved != "online":
                raise
            log.warning("W&B does not answer, tracking offline: %s", error)
            wandb.teardown()
            run = init("offline")
        if run.settings.mode == "offline" or run.offline:
            log.info("tracked offline; `wandb sync %s` uploads it", Path(run.dir).parent)
        else:
            log.info("tracked at %s", run.url)
        run.config.update(dict(config), allow_val_change=True)
        run.define_metric("val_accuracy", summary="max")
    except Exception as error:
        log.warning("W&B cannot be used, the run is not tracked: %s", error)
        return Tracker(identifier)
    return Tracker(identifier, run)


def _has_key() -> bool:
    """Whether W&B has an API key, from the environment or a login; asks no server."""
    import wandb

    return bool(wandb.login(prompt=False, verify=False))
