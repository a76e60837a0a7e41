"""`trainer fit` and `trainer evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.common import (
    DataDirOption,
    DatasetArgument,
    DatasetOption,
    JsonOption,
    ModelArgument,
    ReportDirOption,
    report_folder,
)
from trainer.cli_options import either, with_options
from trainer.config import FitConfig
from trainer.console import (
    masked,
    print_json,
    print_line,
    print_next,
    print_saved,
    print_table,
    reserve_stdout,
    serve_command,
)
from trainer.errors import InputError


def _options_of_run(resume: str) -> dict[str, str]:
    """The options of the run that `--resume` names, which need not be given again."""
    if resume in ("auto", "never"):
        return {}
    from trainer.runs.run_folder import options_of

    return options_of(Path(resume))


@with_options(FitConfig, defaults_from={"resume": _options_of_run})
def fit(
    config: FitConfig,
    as_json: JsonOption = False,
    events: Annotated[
        bool, typer.Option("--events", help="With --json: also one JSON object for each epoch, before the result's.")
    ] = False,
) -> None:
    """Train a classifier and publish it to the model store."""
    from trainer.fit import fit as run_fit
    from trainer.signals import Signals
    from trainer.training_display import TrainingDisplay

    if events and not as_json:
        raise InputError("--events: goes with --json")
    if as_json:
        reserve_stdout()
    with Signals() as signals:
        result = run_fit(config, TrainingDisplay(json_events=events), signals)
    if as_json:
        print_json(result)
    else:
        _print_fit(result)


def evaluate(
    model: ModelArgument,
    first_dataset: DatasetArgument = None,
    dataset: DatasetOption = None,
    engine: Annotated[str, typer.Option(help="litert (what is served) or tensorflow.")] = "litert",
    data_dir: DataDirOption = None,
    report_dir: ReportDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a stored model on images that it has never seen, by default of the data set that it was fitted on."""
    from trainer.evaluate import evaluate as run_evaluate

    spec = either(FitConfig, "dataset", first_dataset, dataset)
    result = run_evaluate(model, spec, engine_name=engine, data_dir=data_dir, report_dir=report_folder(report_dir))
    if as_json:
        print_json(result)
    else:
        _print_evaluation(model, result)


def _print_fit(result: Mapping[str, Any]) -> None:
    """Print the metrics of a fit, and the command that serves it; nothing for a worker that is not the chief."""
    if "test_accuracy" not in result:
        return
    print_line(
        f"validation accuracy {result['val_accuracy']:.2%}, test accuracy {result['test_accuracy']:.2%}, "
        f"{result['quantization']} model, report in {result['run_dir']}/report/report.html"
    )
    _print_verdict(result)
    if result["tag"]:
        print_saved(result["tag"], result["latest"])
    else:
        print_next("trainer", "save", result["run_dir"])


def _print_evaluation(model: str, result: Mapping[str, Any]) -> None:
    """Print precision and recall per class, then the metrics of all images; `model` as the user named it."""
    print_table(
        f"{result['model']} on {result['dataset']}",
        ("class", "images", "precision", "recall"),
        [
            (label, str(row["images"]), f"{row['precision']:.2%}", f"{row['recall']:.2%}" if row["images"] else "")
            for label, row in result["classes"].items()
        ],
    )
    print_line(
        "precision: of the answers that named the class, how many were right; recall: of its images, how many found"
    )
    print_line(_describe_test_images(result))
    validation = "" if result["val_accuracy"] is None else f"validation accuracy {result['val_accuracy']:.2%}, "
    print_line(
        f"{validation}test accuracy {result['test_accuracy']:.2%}, "
        f"calibration error {result['calibration_error']:.2%} (what its probabilities are off by), "
        f"report in {result['report_dir']}/report.html"
    )
    _print_verdict(result)
    print_next(*serve_command(model))


def _print_verdict(result: Mapping[str, Any]) -> None:
    """Print how good the model is, and what to try."""
    print_line(f"{result['verdict']}: {result['reason']}")
    for advice in result["advice"]:
        print_line(f"- {advice['text']}")
        print_line(f"  {masked(advice['command'])}")


def _describe_test_images(result: Mapping[str, Any]) -> str:
    """The number of images measured, and the reasons why others were left out."""
    left_out = [
        f"{count:,} of {name}, which is none of its classes" for name, count in result["unknown_classes"].items()
    ]
    if result["seen_images"]:
        left_out.insert(0, f"{result['seen_images']:,} that it has seen (training and validation images)")
    if result["unreadable_images"]:
        left_out.append(f"{result['unreadable_images']:,} that cannot be read")
    which = "not known whether it learned from them" if result["seen_images"] is None else "which it has never seen"
    return f"measured on {result['test_images']:,} images, {which}; left out: {', '.join(left_out) or 'none'}"
