"""`trainer runs` and `trainer sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.common import FIRST_FIT, JsonOption, format_age, format_size, shorten_spec
from trainer.console import print_json, print_line, print_next, print_table, serve_command
from trainer.errors import InputError
from trainer.text import shell_command

if TYPE_CHECKING:
    from trainer.runs.listing import Run


def runs(
    root: Annotated[
        Path | None, typer.Argument(metavar="[ROOT]", help="The folder that holds the run folders (default: runs).")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete the checkpoints of finished runs. Unfinished runs stay: `rm -r` deletes one."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the runs, the newest first. A sweep is one line; the last line continues an unfinished run."""
    from trainer.runs.listing import list_runs
    from trainer.runs.listing import prune as delete_checkpoints

    listed = list_runs(root)
    if prune:
        pruned_runs, freed_bytes = delete_checkpoints(root)
        if as_json:
            print_json({"pruned_runs": pruned_runs, "freed_bytes": freed_bytes})
        else:
            print_line(f"checkpoints of {pruned_runs} finished runs deleted, {format_size(freed_bytes)} freed")
            _print_unfinished(listed)
    elif as_json:
        for run in listed:
            print_json(run.to_dict())
    else:
        _print_runs(listed)


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A W&B sweep file, such as sweeps/grid.yaml.")],
    trials: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Total, with earlier ones; 0 runs none (default: the file's run_cap, else the whole grid, or 20).",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at once (default: 1; with --cluster: as many as there is room for)."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Run them on the machines of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT."
        ),
    ] = None,
    trial_cpus: Annotated[
        int | None,
        typer.Option(min=1, help="With --cluster: CPUs of a training (default: 2, or what the smallest machine has)."),
    ] = None,
    trial_gpus: Annotated[
        int | None, typer.Option(min=0, help="With --cluster: GPUs of a training (default: 1 where there are any).")
    ] = None,
    run_root: Annotated[
        Path | None,
        typer.Option(
            help="With --cluster: a folder that all machines reach; a lost machine's trainings go on from their "
            "checkpoints there (default: each machine's own cache)."
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUNS",
            help="With `method: bayes`: learn from the trials of earlier sweeps over the same data there.",
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the trials that failed once more.")] = False,
    save_best: Annotated[
        bool, typer.Option("--save-best", help="Publish the best trial's model to the store.")
    ] = False,
) -> None:
    """Search hyper-parameters with a W&B sweep file, without W&B. Stop it at any time; the same command continues."""
    from trainer.sweep.cluster import ClusterOptions
    from trainer.sweep.sweep import run_sweep

    cluster_options = {"--trial-cpus": trial_cpus, "--trial-gpus": trial_gpus, "--run-root": run_root}
    given = [name for name, value in cluster_options.items() if value is not None]
    if cluster is None and given:
        raise InputError(f"{given[0]}: is for the machines of a cluster; --cluster names it")
    run_sweep(
        file,
        trials=trials,
        workers=workers,
        cluster=None if cluster is None else ClusterOptions(cluster, trial_cpus, trial_gpus, run_root),
        start_from=start_from,
        retry_failed=retry_failed,
        save_best=save_best,
    )


def _print_runs(listed: Sequence[Run]) -> None:
    """Print the run folders as a table, and what to do next."""
    if not listed:
        print_line("there are no runs here")
        print_next(*FIRST_FIT)
        return
    print_table(
        "runs, with their accuracy on validation images (val), which choose, and test images, which judge",
        ("run, data set, model", "state", "val / test", "size, age"),
        [
            (
                tuple(filter(None, (Path(run.path).name, shorten_spec(run.dataset or ""), run.tag))),
                _describe_state(run),
                " / ".join(f"{value:.1%}" for value in (run.val_accuracy, run.test_accuracy) if value is not None),
                (format_size(run.size_bytes), format_age(run.created)),
            )
            for run in listed
        ],
        whole=True,
    )
    print_line(f"together {format_size(sum(run.size_bytes for run in listed))} on disk")
    for run in listed:
        if run.error:
            print_line(f"{run.error}; `{shell_command(('rm', '-r', run.path))}` takes it away")
    _print_next_command(listed)


def _print_unfinished(listed: Sequence[Run]) -> None:
    """Print the runs that `--prune` leaves alone, and how to delete each."""
    for run in listed:
        if run.state == "unfinished":
            command = shell_command(("rm", "-r", run.path))
            print_line(f"unfinished, stays: {run.path}, {format_size(run.size_bytes)}; `{command}` deletes it")
    _print_next_command(listed)


def _print_next_command(listed: Sequence[Run]) -> None:
    """Suggest to continue the newest unfinished run; without one, to serve or save the newest finished one."""
    unfinished = [run for run in listed if run.state == "unfinished" and run.resumable]
    finished = [run for run in listed if run.state == "finished"]
    if unfinished:
        print_next("trainer", "fit", "--resume", unfinished[0].path)
    elif not finished:
        print_next(*FIRST_FIT)
    elif tag := finished[0].tag:
        print_next(*serve_command(tag))
    else:
        print_next("trainer", "save", finished[0].path)


def _describe_state(run: Run) -> str:
    if run.state == "sweep":
        return f"sweep, {run.finished_trials} of {run.trials} finished"
    if run.state in ("unfinished", "running"):
        prefix = "running, " if run.state == "running" else ""
        return f"{prefix}epoch {run.epoch} of {run.epochs}"
    return run.state
