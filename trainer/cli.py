"""The command line: parse, delegate, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from trainer.config import FitConfig, InputError, parse_image_size
from trainer.console import (
    TrainingDisplay,
    fail,
    normalize_arguments,
    print_json,
    print_next,
    print_saved,
    print_table,
    serve_command,
    set_up_logging,
)

DEFAULTS = FitConfig(dataset="")
FIRST = ("trainer", "fit", "--dataset", "builtin:digits")  # works without any data or network

app = typer.Typer(
    name="trainer",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Fit image classifiers on any folder or TFDS data set, and keep them in the BentoML model store.",
    epilog="Example: [bold]trainer fit --dataset builtin:digits[/bold]",
)
data_app = typer.Typer(
    no_args_is_help=True,
    help="Look at a data set before training on it.",
    epilog="Example: [bold]trainer data inspect folder:photos[/bold]",
)
cache_app = typer.Typer(
    no_args_is_help=True,
    help="The cache of decoded images.",
    epilog="Example: [bold]trainer cache prune[/bold]",
)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")

DatasetOption = Annotated[
    str, typer.Option("--dataset", metavar="SPEC", help="tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where prepared TFDS data sets lie (default: $TFDS_DATA_DIR)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line; logs go to stderr.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's tag: mnist, mnist:latest or mnist:VERSION.")
]


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """`--debug` is taken off the command line by `main`, wherever it stands; here for the help."""


@app.command(epilog="Example: [bold]trainer fit --dataset folder:photos --model compact_resnet --epochs 20[/bold]")
def fit(
    dataset: DatasetOption,
    model: Annotated[
        str,
        typer.Option(help="branched_cnn (small gray images), compact_resnet (all others) or keras.applications:NAME."),
    ] = DEFAULTS.model,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Default: the images' own size up to 64x64 where they share one, else 64."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(help="Images in a step, over all devices.")] = DEFAULTS.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="The peak, after warm-up and before the cosine decay.")
    ] = DEFAULTS.learning_rate,
    optimizer: Annotated[str, typer.Option(help="adamw, adam or sgd.")] = DEFAULTS.optimizer,
    weight_decay: Annotated[float, typer.Option(help="For adamw and sgd.")] = DEFAULTS.weight_decay,
    dropout: Annotated[
        float, typer.Option(help="Share of the network switched off in each step, 0 to 0.95.")
    ] = DEFAULTS.dropout,
    kernel_size: Annotated[int, typer.Option(help="Of the convolutions, in pixels.")] = DEFAULTS.kernel_size,
    normalize: Annotated[str, typer.Option(help="auto, none or mnist.")] = DEFAULTS.normalize,
    augment: Annotated[str, typer.Option(help="auto, none, light or strong.")] = DEFAULTS.augment,
    class_weights: Annotated[str, typer.Option(help="none or balanced.")] = DEFAULTS.class_weights,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = DEFAULTS.precision,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the augmentation.")] = DEFAULTS.seed,
    limit: Annotated[int | None, typer.Option(help="At most this many training images.")] = DEFAULTS.limit,
    run_dir: Annotated[
        Path | None, typer.Option(help="Default: runs/$WANDB_RUN_ID, else runs/NAME-TIMESTAMP.")
    ] = DEFAULTS.run_dir,
    resume: Annotated[
        str,
        typer.Option(metavar="never|auto|RUN_DIR", help="auto continues an unfinished run of this configuration."),
    ] = DEFAULTS.resume,
    name: Annotated[str | None, typer.Option(help="The model's name (default: the data set's).")] = DEFAULTS.name,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Publish the model to the BentoML store at the end.")
    ] = DEFAULTS.save,
    data_dir: DataDirOption = DEFAULTS.data_dir,
    wandb: Annotated[str, typer.Option(help="auto, online, offline or disabled.")] = DEFAULTS.wandb,
    as_json: JsonOption = False,
    events: Annotated[
        bool, typer.Option("--events", help="With --json: also one JSON object for each epoch, before the result's.")
    ] = False,
) -> None:
    """Train a classifier and publish it to the model store."""
    config = FitConfig(
        dataset=dataset,
        model=model,
        image_size=parse_image_size(image_size),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        weight_decay=weight_decay,
        dropout=dropout,
        kernel_size=kernel_size,
        normalize=normalize,
        augment=augment,
        class_weights=class_weights,
        precision=precision,
        seed=seed,
        limit=limit,
        run_dir=run_dir,
        resume=resume,
        name=name,
        save=save,
        data_dir=data_dir,
        wandb=wandb,
    )
    from trainer.training.fit import fit as run_fit

    with TrainingDisplay(json_events=as_json and events) as display:
        result = run_fit(config, display)
    if as_json:
        print_json(result)
    elif "test_accuracy" in result:
        typer.echo(
            f"validation accuracy {result['val_accuracy']:.2%}, test accuracy {result['test_accuracy']:.2%}, "
            f"{result['quantization']} model, report in {result['run_dir']}/report/report.html"
        )
        if result["tag"]:
            print_saved(result["tag"], result["worse_than"])
        else:
            print_next("trainer", "save", result["run_dir"])


@app.command(epilog="Example: [bold]trainer evaluate mnist --dataset tfds:mnist[/bold]")
def evaluate(
    model: ModelArgument,
    dataset: DatasetOption,
    engine: Annotated[str, typer.Option(help="litert (what is served) or tensorflow.")] = "litert",
    data_dir: DataDirOption = None,
    report_dir: Annotated[
        Path | None, typer.Option(help="Where the report goes (default: report/MODEL-VERSION).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a stored model on a data set's validation and test images."""
    from trainer.training.evaluate import evaluate as run_evaluate

    result = run_evaluate(model, dataset, engine_name=engine, data_dir=data_dir, report_dir=report_dir)
    if as_json:
        print_json(result)
        return
    print_table(
        f"{result['model']} on {result['dataset']}, test images",
        ("class", "images", "precision", "recall"),
        [
            (label, str(row["images"]), f"{row['precision']:.2%}", f"{row['recall']:.2%}")
            for label, row in result["classes"].items()
        ],
    )
    typer.echo(
        "precision: of the answers that named the class, how many were right; recall: of its images, how many found"
    )
    typer.echo(
        f"validation accuracy {result['val_accuracy']:.2%}, test accuracy {result['test_accuracy']:.2%}, "
        f"calibration error {result['calibration_error']:.2%} (what its probabilities are off by), "
        f"report in {result['report_dir']}/report.html"
    )
    print_next(*serve_command(model))


@app.command(epilog="Example: [bold]trainer predict mnist seven.png[/bold]")
def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="MODEL IMAGE...", help="A model's tag and image files; no MODEL with --url."),
    ],
    url: Annotated[str | None, typer.Option(help="Ask this server instead, for example http://127.0.0.1:3000.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify image files, with a stored model or a running server."""
    from trainer.artifact.predict import predict_local, predict_remote

    if url is None and len(arguments) < 2:
        raise InputError("predict: a model and at least one image are expected: trainer predict MODEL IMAGE")
    if url is None:
        results = predict_local(arguments[0], [Path(path) for path in arguments[1:]])
    else:
        results = predict_remote(url, [Path(path) for path in arguments])
    failures = []
    for result in results:
        if isinstance(result, InputError):
            failures.append(str(result))
        elif as_json:
            print_json(result)
        else:
            typer.echo(f"{result['path']}: {result['label']} ({result['probability']:.2%})")
    if failures:
        raise InputError("; ".join(failures))
    if as_json:
        return
    if url is None:
        print_next(*serve_command(arguments[0]))
    else:
        print_next("curl", "--data-binary", f"@{arguments[0]}", f"{url.rstrip('/')}/predict")


@app.command(epilog="Example: [bold]trainer models[/bold]")
def models(as_json: JsonOption = False) -> None:
    """List the models of the store, the newest first."""
    from trainer import artifact
    from trainer.artifact import store

    rows = []
    for stored in store.models():
        spec = artifact.read_spec(stored.path)
        rows.append(
            {
                "tag": stored.tag,
                "dataset": spec["dataset"],
                "test_accuracy": spec["metrics"].get("test_accuracy"),
                "val_accuracy": spec["metrics"].get("val_accuracy"),
                "quantization": spec["quantization"],
                "size_bytes": stored.size_bytes,
                "created": stored.created.isoformat(),
            }
        )
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        typer.echo("the store is empty")
        print_next(*FIRST)
        return
    print_table(
        "models, with their accuracy on validation images (val), which choose, and test images, which judge",
        ("tag", "data set", "val / test", "size", "age"),
        [
            (
                row["tag"],
                _short(row["dataset"]),
                "" if row["test_accuracy"] is None else f"{100 * row['val_accuracy']:.2f} / {row['test_accuracy']:.2%}",
                f"{row['size_bytes'] / 1e6:.0f} MB",
                _age(datetime.now(UTC) - datetime.fromisoformat(row["created"])),
            )
            for row in rows
        ],
    )
    print_next(*serve_command(rows[0]["tag"]))


@app.command(epilog="Example: [bold]trainer save runs/mnist-20260101-120000[/bold]")
def save(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run.")],
    name: Annotated[str | None, typer.Option(help="The model's name (default: the run's).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the model of a run folder to the store."""
    from trainer.training.publish import publish_run

    published = publish_run(run_dir, name)
    if as_json:
        print_json(asdict(published))
    else:
        print_saved(published.tag, published.worse_than)


@app.command(epilog="Example: [bold]trainer sweep sweeps/grid.yaml --workers 2 --save-best[/bold]")
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A W&B sweep file, such as sweeps/grid.yaml.")],
    trials: Annotated[
        int | None,
        typer.Option(min=0, help="Total, with earlier ones (default: the file's run_cap, else the whole grid, or 20)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at once; each has its share of the cores.")] = 1,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="An Optuna storage that machines share (default: a journal file).")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the points that failed once more.")] = False,
    save_best: Annotated[
        bool, typer.Option("--save-best", help="Publish the best trial's model to the store.")
    ] = False,
) -> None:
    """Search hyper-parameters with a W&B sweep file, without W&B. Stop it at any time; the same command goes on."""
    from trainer.sweep.sweep import run_sweep

    searchable = [
        name for name in inspect.signature(fit).parameters if name not in ("as_json", "events", "run_dir", "resume")
    ]
    run_sweep(
        file,
        searchable,
        trials=trials,
        workers=workers,
        storage=storage,
        retry_failed=retry_failed,
        save_best=save_best,
    )


@data_app.command("inspect", epilog="Example: [bold]trainer data inspect folder:photos[/bold]")
def data_inspect(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits.")
    ],
    data_dir: DataDirOption = None,
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes (PNG).")] = Path("contact-sheet.png"),
    as_json: JsonOption = False,
) -> None:
    """Show classes, counts, sizes and rejected files, and draw a contact sheet."""
    from trainer.data import load
    from trainer.data.inspect import contact_sheet, summarize
    from trainer.models import suggest

    dataset = load(spec, data_dir=data_dir)
    summary = summarize(dataset)
    contact_sheet(dataset, sheet)
    if as_json:
        print_json({**asdict(summary), "contact_sheet": str(sheet)})
        return
    counts = summary.counts
    print_table(
        summary.spec,
        ("class", *counts),
        [(label, *(f"{counts[split][i]:,}" for split in counts)) for i, label in enumerate(summary.labels)],
    )
    for height, width, channels, images in summary.sizes[:5]:
        typer.echo(f"{images:,} images of {height}x{width}x{channels}")
    if len(summary.sizes) > 5:
        typer.echo(f"and {len(summary.sizes) - 5} more sizes")
    pixels = summary.pixels
    typer.echo(f"decoded to {pixels.height}x{pixels.width}x{pixels.channels}; contact sheet in {sheet}")
    typer.echo(f"{len(summary.rejected)} rejected, {summary.ignored} ignored (no images)")
    for file in summary.rejected[:20]:
        typer.echo(f"  {file.path}: {file.reason}")
    suggested = suggest(pixels)
    model = () if suggested == DEFAULTS.model else ("--model", suggested)
    print_next("trainer", "fit", "--dataset", spec, *model, *(("--data-dir", data_dir) if data_dir else ()))


@cache_app.command("prune", epilog="Example: [bold]trainer cache prune[/bold]")
def cache_prune() -> None:
    """Delete the decoded images that no process is using; they are made again when needed."""
    from trainer.data.cache import prune

    count, size_bytes = prune()
    typer.echo(f"{count} cached data sets deleted, {size_bytes / 1e6:.0f} MB freed")
    print_next(*FIRST)


def main() -> None:
    """The console script."""
    set_up_logging()
    sys.exit(run(sys.argv[1:]))


def run(command_line: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    debug = "--debug" in command_line
    try:
        code = app(normalize_arguments(command_line), standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return fail(error)
    return code if isinstance(code, int) else 0


def _short(spec: str) -> str:
    """A data set's spec; of a path, the last part."""
    return re.sub(r"^(folder|csv):.*/(?=.)", "…/", spec)


def _age(age: timedelta) -> str:
    if age < timedelta(hours=1):
        return f"{age.seconds // 60} min"
    if age < timedelta(days=1):
        return f"{age.seconds // 3600} h"
    return f"{age.days} d"
