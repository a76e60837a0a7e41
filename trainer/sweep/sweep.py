"""`trainer sweep`: a sweep file, its trials, the leaderboard and the winner, top to bottom."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trainer.console import print_line, print_next, print_table
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.errors import InputError, RunError
from trainer.names import slug
from trainer.runs.run_folder import RUNS
from trainer.signals import Signals
from trainer.sweep.cluster import ClusterOptions, connect
from trainer.sweep.driver import Driver
from trainer.sweep.executor import Executor
from trainer.sweep.leaderboard import caution, format_outcome, format_params, leaderboard
from trainer.sweep.live_table import LiveTable
from trainer.sweep.local import LocalExecutor
from trainer.sweep.search import Search
from trainer.sweep.space import METRIC, SweepSpec
from trainer.sweep.start_from import earlier_trials
from trainer.sweep.sweep_file import read_spec
from trainer.sweep.sweep_page import write_page
from trainer.sweep.winner import log_promoted, publish_best

log = logging.getLogger("trainer")

DEFAULT_TRIALS = 20
MAX_REASONS = 5  # of failed trials, logged at the end
PAGE = "sweep.html"


def run_sweep(
    file: Path,
    *,
    trials: int | None,
    workers: int | None,
    cluster: ClusterOptions | None,
    start_from: Path | None,
    retry_failed: bool,
    save_best: bool,
) -> None:
    """Run the trials of a sweep file, show the best of each data set, and publish their models.

    `workers` None: one, or all slots of the cluster. Raises InputError for a wrong file, option or data set, RunError
    where all trials fail, and Interrupted after a signal.
    """
    spec, sources = read_sweep(file)
    names = [spec.model_name or slug(source.name) for source in sources]
    if save_best:
        _refuse_equal_names(spec, names)
    earlier = earlier_trials(spec, start_from) if start_from else ()
    with Search(spec, RUNS / f"sweep-{spec.name}", earlier) as search:
        max_trials = trials if trials is not None else spec.run_cap
        if max_trials is None and spec.method != "grid":
            max_trials = DEFAULT_TRIALS
        fixed = {name: one.choices[0] for name, one in spec.parameters.items() if name not in spec.varied}
        count = max_trials if max_trials is not None else spec.count()
        log.info(
            "sweep in %s: %s, %s trials; %s", search.folder, spec.method, count, format_params(fixed) or "nothing fixed"
        )
        log_promoted(names, save_best=save_best)
        try:
            # Signals come after Ray, which installs signal handlers of its own when it starts.
            with _executor(search, sources, workers, cluster) as executor, Signals():
                driver = Driver(search, executor, max_trials=max_trials, retry_failed=retry_failed)
                with LiveTable(search, driver, max_trials).shown() as table:
                    driver.run(table.refresh)
        finally:
            _show(search)
        _log_failures(search)
        if save_best:
            publish_best(search)
        elif search.finished():
            print_next("trainer", "sweep", file, "--trials", "0", "--save-best")
        else:
            print_next("trainer", "sweep", file, *(("--cluster", cluster.address) if cluster else ()))


def read_sweep(file: Path) -> tuple[SweepSpec, list[Source]]:
    """The spec of a sweep file and its data sets as they are now: other images in the same folder make another sweep.

    Raises InputError for a wrong file, and for a data set that cannot be opened, as every trial on it would fail.
    """
    spec = read_spec(file)
    sources = [open_source(dataset, spec.data_dir) for dataset in spec.datasets]
    for first, second in itertools.combinations(zip(spec.datasets, sources, strict=True), 2):
        if first[1].spec == second[1].spec:
            raise InputError(f"{file}, parameters.dataset: {first[0]} and {second[0]} are the same data")
    return replace(spec, data=tuple(source.fingerprint for source in sources)), sources


def _refuse_equal_names(spec: SweepSpec, names: Sequence[str]) -> None:
    """Raise InputError where the best models of two data sets would be versions of one name; `names` are theirs."""
    for name, count in Counter(names).items():
        if count > 1:
            same = [dataset for dataset, own in zip(spec.datasets, names, strict=True) if own == name]
            raise InputError(
                f"--save-best: the models of {' and '.join(same)} would both be named {name}; "
                "a sweep file for each, with `--name` in its command, gives them names of their own"
            )


@contextmanager
def _executor(
    search: Search, sources: Sequence[Source], workers: int | None, cluster: ClusterOptions | None
) -> Iterator[Executor]:
    if cluster is None:
        yield LocalExecutor(workers or 1)
        return
    with connect(cluster, search, sources, workers) as executor:
        yield executor


def _show(search: Search) -> None:
    for dataset in search.datasets():
        rows = leaderboard(search, dataset)
        on = f" on {dataset}" if len(search.spec.datasets) > 1 else ""
        print_table(f"{search.spec.name}: the best trials{on}", ("trial", METRIC, "parameters"), rows)
        if len(rows) > 1 and (sentence := caution(search, dataset)):
            print_line(sentence)
    if write_page(search, search.folder / PAGE):
        print_line(f"charts in {search.folder / PAGE}")


def _log_failures(search: Search) -> None:
    """Log the failed trials. Raises RunError where no other trial has finished."""
    failures = search.open_failures()
    for trial in failures[:MAX_REASONS]:
        log.warning("trial %d %s", trial.number, format_outcome(trial))
    if failures:
        log.warning("trials that failed and are left out: %d; --retry-failed runs them once more", len(failures))
    if failures and not search.finished():
        raise RunError(f"no trial has finished; `fit.log` in {search.folder}/trial-* says more than the reasons above")
