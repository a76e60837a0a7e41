"""`trainer sweep`: a sweep file, its trials, the leaderboard and the winner, top to bottom."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import typer

from trainer.console import Echoes, print_next, print_saved, print_table
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.errors import InputError, Interrupted, RunError
from trainer.runs.publish import publish_run
from trainer.runs.run_folder import EXPORT, RUNS, read_run, result_of
from trainer.sweep.board import Board, caution, in_a_line, leaderboard, outcome
from trainer.sweep.cluster import Cluster, connected
from trainer.sweep.driver import Driver
from trainer.sweep.earlier import earlier_trials
from trainer.sweep.executor import Executor, FitProcess
from trainer.sweep.local import LocalExecutor
from trainer.sweep.page import write_page
from trainer.sweep.search import POINT, RUN, Search
from trainer.sweep.space import METRIC, SweepSpec
from trainer.sweep.sweep_file import read_spec

log = logging.getLogger("trainer")

DEFAULT_TRIALS = 20
FAILURES = 5  # whose reasons are shown at the end
PICTURES = "sweep.html"


def run_sweep(
    file: Path,
    options: Sequence[str],
    *,
    trials: int | None,
    workers: int | None,
    cluster: Cluster | None,
    start_from: Path | None,
    retry_failed: bool,
    save_best: bool,
) -> None:
    """Run the trials of a sweep file, show the best, and publish its model.

    `options` are those of `trainer fit` that may be searched. `workers` None: one, or what the cluster has room for.
    Raises InputError for what is wrong in the file or given to the trials, RunError where all of them fail, and
    Interrupted after a signal.
    """
    spec, sources = read_sweep(file, options)
    earlier = earlier_trials(spec, start_from) if start_from else ()
    with Search(spec, RUNS / f"sweep-{spec.name}", earlier) as search:
        most = trials if trials is not None else spec.run_cap
        if most is None and spec.method != "grid":
            most = DEFAULT_TRIALS
        fixed = {name: one.choices[0] for name, one in spec.parameters.items() if name not in spec.varied}
        count = most if most is not None else spec.points()
        log.info(
            "sweep in %s: %s, %s trials; %s", search.folder, spec.method, count, in_a_line(fixed) or "nothing fixed"
        )
        try:
            # Ray takes the signals when it starts.
            with _executor(search, sources, workers, cluster) as executor, _stoppable():
                driver = Driver(search, executor, most=most, retry_failed=retry_failed)
                with Board(search, driver, most).shown() as board:
                    driver.run(board.refresh)
        finally:
            _show(search)
        _tell_failures(search)
        if save_best:
            _save_best(search)
        elif search.leaders():
            print_next("trainer", "sweep", file, "--trials", "0", "--save-best")
        else:
            print_next("trainer", "sweep", file, *(("--cluster", cluster.address) if cluster else ()))


def read_sweep(file: Path, options: Sequence[str]) -> tuple[SweepSpec, list[Source]]:
    """A sweep file, and its data as it is now: other pictures in the same folder make another sweep.

    Raises InputError for what is wrong in the file, and for data that cannot be used, for which each trial would fail.
    """
    spec = read_spec(file, options)
    folders = spec.given("data_dir")
    sources = [open_source(dataset, Path(folders[0]) if folders else None) for dataset in spec.given("dataset")]
    return replace(spec, data=tuple(source.fingerprint for source in sources)), sources


@contextmanager
def _executor(
    search: Search, sources: Sequence[Source], workers: int | None, cluster: Cluster | None
) -> Iterator[Executor]:
    if cluster is None:
        yield LocalExecutor(workers or 1)
        return
    with connected(cluster, search, sources, workers) as executor:
        yield executor


@contextmanager
def _stoppable() -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM raise Interrupted."""
    echoes = Echoes()

    def interrupt(number: int, _: FrameType | None) -> None:
        if not echoes.is_echo():
            name = signal.Signals(number).name
            raise Interrupted(f"{name}: stopped; run the same command again to continue", 128 + number)

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _show(search: Search) -> None:
    rows = leaderboard(search)
    if rows:
        print_table(f"{search.spec.name}: the best trials", ("trial", METRIC, "parameters"), rows)
    if len(rows) > 1 and (words := caution(search)):
        typer.echo(words)
    if write_page(search, search.folder / PICTURES):
        typer.echo(f"pictures in {search.folder / PICTURES}")


def _tell_failures(search: Search) -> None:
    """Raises RunError where there is nothing else."""
    failures = search.open_failures()
    for trial in failures[:FAILURES]:
        log.warning("trial %d %s", trial.number, outcome(trial))
    if failures:
        log.warning("trials that failed and are left out: %d; --retry-failed runs them once more", len(failures))
    if failures and not search.leaders():
        raise RunError(f"no trial has finished; `fit.log` in {search.folder}/trial-* says more than the reasons above")


def _save_best(search: Search) -> None:
    leaders = search.leaders()
    if not leaders:
        raise InputError(f"{search.folder}: no trial has finished; there is no best one to save")
    best = leaders[0]
    folder = Path(best.user_attrs[RUN])
    if not (folder / EXPORT).exists():
        _export(search.spec.options(best.user_attrs[POINT]), best.number, folder)
    published = publish_run(folder, None)
    result = result_of(folder, read_run(folder))
    typer.echo(
        f"trial {best.number}: validation accuracy {result['val_accuracy']:.2%}, "
        f"test accuracy {result['test_accuracy']:.2%}"
    )
    print_saved(published.tag, published.latest)


def _export(options: Sequence[str], number: int, folder: Path) -> None:
    """Have the best trial export its model, on all of this machine. Raises RunError where it cannot."""
    log.info("trial %d: exporting its model", number)
    process = FitProcess(options, folder, {})
    with _stoppable():
        try:
            for _ in process.events():
                pass
        except BaseException:
            process.stop()
            raise
    if process.outcome.result is None:
        raise RunError(f"trial {number}: {process.outcome.reason}")
