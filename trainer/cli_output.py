"""The results of commands as a person reads them: sentences, tables, and what to do next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainer.console import masked, print_next, print_saved, print_table, serve_command

if TYPE_CHECKING:
    from trainer.data.contact_sheet import Summary
    from trainer.data_checks.fix import Written
    from trainer.data_checks.run import Findings
    from trainer.runs.listing import Run

FIRST = ("trainer", "fit", "--dataset", "builtin:digits")  # works without any data or network


def print_fit(result: Mapping[str, Any]) -> None:
    """What `fit` has reached, and the command that serves it; nothing of a worker that is not the chief."""
    if "test_accuracy" not in result:
        return
    typer.echo(
        f"validation accuracy {result['val_accuracy']:.2%}, test accuracy {result['test_accuracy']:.2%}, "
        f"{result['quantization']} model, report in {result['run_dir']}/report/report.html"
    )
    _print_judgement(result)
    if result["tag"]:
        print_saved(result["tag"], result["latest"])
    else:
        print_next("trainer", "save", result["run_dir"])


def print_evaluation(model: str, result: Mapping[str, Any]) -> None:
    """Precision and recall of each class, then the figures of all; `model` as it was asked for."""
    print_table(
        f"{result['model']} on {result['dataset']}",
        ("class", "images", "precision", "recall"),
        [
            (label, str(row["images"]), f"{row['precision']:.2%}", f"{row['recall']:.2%}" if row["images"] else "")
            for label, row in result["classes"].items()
        ],
    )
    typer.echo(
        "precision: of the answers that named the class, how many were right; recall: of its images, how many found"
    )
    typer.echo(_measured(result))
    validation = "" if result["val_accuracy"] is None else f"validation accuracy {result['val_accuracy']:.2%}, "
    typer.echo(
        f"{validation}test accuracy {result['test_accuracy']:.2%}, "
        f"calibration error {result['calibration_error']:.2%} (what its probabilities are off by), "
        f"report in {result['report_dir']}/report.html"
    )
    _print_judgement(result)
    print_next(*serve_command(model))


def _print_judgement(result: Mapping[str, Any]) -> None:
    """How good the model is, and what to try."""
    typer.echo(f"{result['verdict']}: {result['reason']}")
    for one in result["advice"]:
        typer.echo(f"- {one['text']}\n  {masked(one['command'])}")


def _measured(result: Mapping[str, Any]) -> str:
    """On how many images, and why not on the others."""
    left_out = [
        f"{count:,} of {name}, which is none of its classes" for name, count in result["unknown_classes"].items()
    ]
    if result["seen_images"]:
        left_out.insert(0, f"{result['seen_images']:,} that it has seen (training and validation images)")
    if result["unreadable_images"]:
        left_out.append(f"{result['unreadable_images']:,} that cannot be read")
    which = "not known whether it learned from them" if result["seen_images"] is None else "which it has never seen"
    return f"measured on {result['test_images']:,} images, {which}; left out: {', '.join(left_out) or 'none'}"


def print_prediction(answer: Mapping[str, Any]) -> None:
    """The class of one image file."""
    doubt = "" if answer.get("known", True) else "; not sure: perhaps none of the classes"
    typer.echo(f"{answer['path']}: {answer['label']} ({answer['probability']:.2%}{doubt})")


def print_explanation(answer: Mapping[str, Any]) -> None:
    """The class of one image file, and where the picture that explains it lies."""
    print_prediction(answer)
    typer.echo(f"  what spoke for it: {answer['explanation']}")


def print_after_predict(first: str, url: str | None) -> None:
    """What to try after `predict`; `first` is its first argument: the model, or with `url` an image file."""
    if url is None:
        print_next(*serve_command(first))
    else:
        print_next("curl", "--data-binary", f"@{first}", f"{url.rstrip('/')}/predict")


def print_promoted(tag: str, replaced: str | None) -> None:
    """What a name means now, and what it meant before."""
    name = tag.partition(":")[0]
    before = "" if replaced in (tag, None) else f", no longer {replaced}"
    typer.echo(f"{name} now means {tag}{before}; a running server goes on with what it has")
    print_next(*serve_command(name))


def print_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """The models of the store, as `artifact.listing` has them, one a row."""
    if not rows:
        typer.echo("the store is empty")
        print_next(*FIRST)
        return
    print_table(
        "models (*: what its name means), with their accuracy on validation images (val), which choose, and test "
        "images, which judge",
        ("tag", "data", "val / test", "size", "age"),
        [
            (
                f"{row['tag']} *" if row["latest"] else row["tag"],
                "cannot be read" if row["error"] else _short(row["dataset"]),
                "" if row["test_accuracy"] is None else f"{100 * row['val_accuracy']:.2f} / {row['test_accuracy']:.2%}",
                f"{row['size_bytes'] / 1e6:.0f} MB",
                _age(datetime.now(UTC) - datetime.fromisoformat(row["created"])),
            )
            for row in rows
        ],
        whole=True,
    )
    for row in rows:
        if row["error"]:
            typer.echo(f"{row['error']}; `bentoml models delete {row['tag']}` takes it away")
        if row["not_promoted"]:
            typer.echo(f"{row['tag']} is not promoted: {'; '.join(row['not_promoted'])}")
    print_next(*_after_models([row for row in rows if not row["error"]]))


def _after_models(sound: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What serves the newest model that its name means, or one that it could mean; else what promotes the newest."""
    candidates = [row for row in sound if not row["not_promoted"]]
    if candidates:
        return serve_command(min(candidates, key=lambda row: not row["latest"])["tag"])
    return ("trainer", "promote", sound[0]["tag"]) if sound else FIRST


def print_runs(runs: Sequence[Run]) -> None:
    """The run folders, one a row, and the command that continues the newest unfinished one."""
    if not runs:
        typer.echo("there are no runs here")
        print_next(*FIRST)
        return
    print_table(
        "runs, with their accuracy on validation images (val), which choose, and test images, which judge",
        ("run, data set", "state, model", "val / test", "size, age"),
        [
            (
                f"{Path(run.path).name}\n{_short(run.dataset or '')}",
                f"{_state(run)}\n{run.tag or ''}",
                " / ".join(f"{one:.1%}" for one in (run.val_accuracy, run.test_accuracy) if one is not None),
                f"{run.size_bytes / 1e6:.0f} MB\n{_age(datetime.now(UTC) - datetime.fromisoformat(run.created))}",
            )
            for run in runs
        ],
    )
    for run in runs:
        if run.error:
            typer.echo(f"{run.error}; `{shlex.join(('rm', '-r', run.path))}` takes it away")
    _print_after_runs(runs)


def print_pruned(freed: tuple[int, int], runs: Sequence[Run]) -> None:
    """What `--prune` has freed, (runs, bytes), and what may be deleted by hand."""
    count, size_bytes = freed
    typer.echo(f"checkpoints of {count} finished runs deleted, {size_bytes / 1e6:.0f} MB freed")
    for run in runs:
        if run.state == "unfinished":
            command = shlex.join(("rm", "-r", run.path))
            typer.echo(f"unfinished, stays: {run.path}, {run.size_bytes / 1e6:.0f} MB; `{command}` deletes it")
    _print_after_runs(runs)


def _print_after_runs(runs: Sequence[Run]) -> None:
    unfinished = [run for run in runs if run.state == "unfinished" and run.resumable]
    finished = [run for run in runs if run.state == "finished"]
    if unfinished:
        print_next("trainer", "fit", "--resume", unfinished[0].path)
    elif not finished:
        print_next(*FIRST)
    elif tag := finished[0].tag:
        print_next(*serve_command(tag))
    else:
        print_next("trainer", "save", finished[0].path)


def _state(run: Run) -> str:
    if run.state == "sweep":
        return f"sweep, {run.finished_trials} of {run.trials} finished"
    if run.state in ("unfinished", "running"):
        where = "running, " if run.state == "running" else ""
        return f"{where}epoch {run.epoch} of {run.epochs}"
    return run.state


def print_dataset(summary: Summary, sheet: Path | None) -> None:
    """Counts, sizes and rejected files."""
    counts = summary.counts
    print_table(
        summary.spec,
        ("class", *counts),
        [(label, *(f"{counts[split][i]:,}" for split in counts)) for i, label in enumerate(summary.class_names)],
    )
    for height, width, channels, images in summary.sizes[:5]:
        typer.echo(f"{images:,} images of {height}x{width}x{channels}")
    if len(summary.sizes) > 5:
        typer.echo(f"and {len(summary.sizes) - 5} more sizes")
    pixels = summary.pixels
    drawn = f"; contact sheet in {sheet}" if sheet else ""
    typer.echo(f"decoded to {pixels.height}x{pixels.width}x{pixels.channels}{drawn}")
    typer.echo(f"{len(summary.rejected)} rejected, {summary.ignored} ignored (no images)")
    for file in summary.rejected[:20]:
        typer.echo(f"  {file.path}: {file.reason}")


def print_findings(findings: Findings, page: Path | None) -> None:
    """What the data doctor has found, and where it is shown."""
    from trainer.data_checks.summary import sentences

    for line in sentences(findings):
        typer.echo(line)
    if page:
        typer.echo(f"the pictures in question, and what to do with each: open {page} in a browser")


def print_fixed(written: Written) -> None:
    """What a new table leaves out and changes, and the command that learns from it."""
    typer.echo(
        f"{written.table}: {written.images:,} images, {written.left_out:,} left out, {written.relabelled:,} with "
        "another label; no image was deleted or changed"
    )
    print_next("trainer", "fit", f"csv:{written.table}")


def print_after_inspect(spec: str, data_dir: Path | None, *, look: bool) -> None:
    """The command that shows what was found, where there is something to `look` at; else the one that trains."""
    place = ("--data-dir", data_dir) if data_dir else ()
    if look:
        print_next("trainer", "data", "inspect", spec, *place, "--page", "page.html")
    else:
        print_next("trainer", "fit", "--dataset", spec, *place)


def _short(spec: str) -> str:
    """A data set's spec; of a path, the last part."""
    return re.sub(r"^(folder|csv):.*/(?=.)", "…/", spec)


def _age(age: timedelta) -> str:
    if age < timedelta(hours=1):
        return f"{age.seconds // 60} min"
    if age < timedelta(days=1):
        return f"{age.seconds // 3600} h"
    return f"{age.days} d"
