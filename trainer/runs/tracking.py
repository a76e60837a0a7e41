"""Tracking with Weights & Biases. A tracking server that fails never stops or fails a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import TrainerError
from trainer.text import printable

if TYPE_CHECKING:
    from trainer.reporting.metrics import Evaluation, Mistake

log = logging.getLogger("trainer")

PROJECT = "trainer"
INIT_TIMEOUT_S = 20.0  # for a server that does not answer at the start of a run
FINISH_TIMEOUT_S = 60.0  # at the end of a run; files that are not uploaded by then stay on disk


class Tracker:
    """A W&B run; does nothing if `run` is None. Every failure of W&B is ignored, and the first is logged."""

    def __init__(self, run_id: str | None, run: Any = None) -> None:
        self.id = run_id
        self._run = run
        self._warned = False

    def on_step(self, step: int, total_steps: int) -> None:
        """See `trainer.training.callbacks`; W&B gets the metrics of epochs only."""

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        """Log the metrics of an epoch at a training step."""
        self._safely(lambda: self._run.log(dict(entry), step=step))

    def on_train_end(self) -> None:
        """See `trainer.training.callbacks`; `finish` ends the W&B run, after the export."""

    def log_report(
        self, files: Mapping[str, Path], mistakes: Sequence[Mistake], class_names: Sequence[str], evaluation: Evaluation
    ) -> None:
        """The report: its files (name → PNG or HTML), per-class accuracy, the confusion matrix, the worst mistakes."""
        self._safely(lambda: self._run.log(_report_values(files, mistakes, class_names, evaluation)))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Final values, which W&B's tables show and its sweeps compare."""
        self._safely(lambda: self._run.summary.update(dict(values)))

    def finish(self, exit_code: int, error: str | None = None) -> None:
        """End the run; a failed one keeps its reason in the summary under `error`."""
        if error is not None:
            self.summary({"error": error})
        self._safely(lambda: self._run.finish(exit_code=exit_code))

    def _safely(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
        except TrainerError:  # raised by a signal while W&B worked
            raise
        except Exception as error:  # whatever W&B raises: the training matters more than its record
            if not self._warned:
                log.warning("W&B failed and the run goes on: %s; %s", _line(error), _how_to_sync(self._run))
                self._warned = True


def start(
    mode: str, *, config: Mapping[str, Any], run_dir: Path, name: str, run_id: str | None, resume: bool
) -> Tracker:
    """Start (or with `resume` continue) the run `run_id` in `mode`: auto, online, offline or disabled.

    `auto` follows W&B's own settings ($WANDB_MODE first), and is offline without an API key. Online falls back to
    offline where there is no key or the server does not answer. A `run_id` of None leaves the choice to W&B.
    """
    if mode == "disabled" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
        return Tracker(run_id)
    try:
        run = _start(mode, run_dir=run_dir, name=name, run_id=run_id, resume=resume)
        # The agent of a sweep has set these keys already, to the values that the command line passed on.
        values = {key: printable(value) if isinstance(value, str) else value for key, value in config.items()}
        run.config.update(values, allow_val_change=True)
        # Curves over epochs: steps of different batch sizes do not compare. No `summary=`: it would turn
        # `val_accuracy`, which sweeps compare, from a number into a dict.
        run.define_metric("*", step_metric="epoch")
    except TrainerError:  # raised by a signal while W&B worked
        raise
    except Exception as error:
        log.warning("W&B cannot be used, the run is not tracked: %s", _line(error))
        return Tracker(run_id)
    return Tracker(run.id, run)


def _start(mode: str, *, run_dir: Path, name: str, run_id: str | None, resume: bool) -> Any:
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,  # it would upload the uncommitted changes of whatever checkout we run in
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )
    if mode != "auto":
        settings.mode = mode
    folder = Path(os.environ.get("WANDB_DIR") or run_dir)
    folder.mkdir(parents=True, exist_ok=True)

    def init(how: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=folder,
            id=run_id,
            name=name,
            mode=how,
            resume="allow" if resume else None,
        )

    wandb.setup(settings)
    wanted = mode != "auto" or "WANDB_MODE" in os.environ  # otherwise nobody asked for W&B
    if mode != "offline":
        try:
            # Looks for a key without asking a server; False also if W&B's own settings say offline.
            if wandb.login(prompt=False, verify=False):
                run = init("online")
                log.info("tracked at %s", run.url)
                return run
            if mode == "online":
                log.warning("--wandb online: there is no API key (`wandb login` stores one), tracking offline")
        except TrainerError:
            raise
        except Exception as error:
            log.warning("W&B cannot be reached, tracking offline: %s", _line(error))
            with suppress(SystemExit):  # how teardown reports a service that failed
                wandb.teardown()  # the failed start holds on to the run's id
            wandb.setup(settings)
            wanted = True
    run = init("offline")
    if wanted:
        log.info("tracked offline; %s", _how_to_sync(run))
    return run


def _report_values(
    files: Mapping[str, Path], mistakes: Sequence[Mistake], class_names: Sequence[str], evaluation: Evaluation
) -> dict[str, Any]:
    import wandb

    class_names = [printable(name) for name in class_names]

    def media(file: Path) -> Any:
        if file.suffix == ".html":
            return wandb.Html(str(file), inject=False)  # W&B's own style sheet would be fetched from its server
        return wandb.Image(str(file))

    confusion = wandb.Table(
        columns=["Actual", "Predicted", "nPredictions"],
        data=[
            [class_names[truth], class_names[answer], int(evaluation.confusion[truth, answer])]
            for truth, answer in zip(*evaluation.confusion.nonzero(), strict=True)
        ],
    )
    per_class = wandb.Table(
        columns=["class", "images", "accuracy", "precision"],
        data=[
            [label, int(images), float(recall), float(precision)]
            for label, images, recall, precision in zip(
                class_names, evaluation.confusion.sum(1), evaluation.recall, evaluation.precision, strict=True
            )
        ],
    )
    worst = wandb.Table(
        columns=["image", "file", "truth", "prediction", "probability"],
        data=[
            [
                wandb.Image(mistake.image),
                printable(mistake.name),
                class_names[mistake.true],
                class_names[mistake.predicted],
                mistake.probability,
            ]
            for mistake in mistakes
        ],
    )
    return {
        # W&B's own chart of a confusion matrix, fed with counts instead of every single prediction.
        "confusion_matrix": wandb.plot_table(
            "wandb/confusion_matrix/v1", confusion, {column: column for column in confusion.columns}
        ),
        "per_class_accuracy": per_class,
        "worst_mistakes": worst,
        **{f"report/{name}": media(file) for name, file in files.items()},
    }


def _how_to_sync(run: Any) -> str:
    return f"`wandb sync {Path(run.dir).parent}` uploads it"


def _line(error: Exception) -> str:
    """The first line of W&B's message: the rest is advice that does not apply here."""
    return (str(error) or type(error).__name__).splitlines()[0]
