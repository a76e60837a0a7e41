"""The command line: parse, delegate, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from trainer import cli_output
from trainer.cli_options import (
    Commands,
    either,
    first_argument,
    flags,
    in_our_words,
    normalize_arguments,
    require,
    typer_option,
    with_options,
)
from trainer.config import FitConfig
from trainer.console import fail, masked, print_json, print_next, print_saved, set_up_logging
from trainer.errors import InputError
from trainer.files import can_write
from trainer.machine import require_home
from trainer.option_fields import searchable
from trainer.training_display import TrainingDisplay

log = logging.getLogger("trainer")

REPORTS = Path("report")

app = typer.Typer(
    name="trainer",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit image classifiers on any folder or TFDS data set, and keep them in the BentoML model store.",
    epilog="Example: [bold]trainer fit builtin:digits[/bold]",
)
data_app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Look at a data set before training on it.",
    epilog="Example: [bold]trainer data inspect folder:photos[/bold]",
)
cache_app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="The cache of decoded images.",
    epilog="Example: [bold]trainer cache prune[/bold]",
)
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")

DatasetArgument = Annotated[str | None, first_argument(FitConfig, "dataset")]
DatasetOption = Annotated[str | None, typer_option(FitConfig, "dataset")]
DataDirOption = Annotated[Path | None, typer_option(FitConfig, "data_dir")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line; logs go to stderr.")]
PromoteOption = Annotated[bool, typer_option(FitConfig, "promote")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's tag: mnist, mnist:latest or mnist:VERSION.")
]


def print_version(wanted: bool) -> None:
    """The callback of `--version`."""
    if wanted:
        from importlib.metadata import version

        typer.echo(version("trainer"))
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    shown: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """`--debug` is taken off the command line by `main`, wherever it stands; here for the help."""
    require_home()


def options_of_run(resume: str) -> dict[str, str]:
    """The options of the run that `--resume` names, which need not be given again."""
    if resume in ("auto", "never"):
        return {}
    from trainer.runs.run_folder import options_of

    return options_of(Path(resume))


@app.command(epilog="Example: [bold]trainer fit folder:photos --model compact_resnet --epochs 20[/bold]")
@with_options(FitConfig, defaults_of={"resume": options_of_run})
def fit(
    config: FitConfig,
    as_json: JsonOption = False,
    events: Annotated[
        bool, typer.Option("--events", help="With --json: also one JSON object for each epoch, before the result's.")
    ] = False,
    end_with_stdin: Annotated[bool, typer.Option("--end-with-stdin", hidden=True)] = False,
    export_above: Annotated[float | None, typer.Option("--export-above", hidden=True)] = None,
) -> None:
    """Train a classifier and publish it to the model store."""
    from trainer.fit import fit as run_fit

    if config.save and export_above is not None:
        raise InputError("--export-above: is for the trials of a sweep; --no-save goes with it")
    with TrainingDisplay(json_events=as_json and events, end_with_stdin=end_with_stdin) as display:
        result = run_fit(config, display, export_above)
    if as_json:
        print_json(result)
    else:
        cli_output.print_fit(result)


@app.command(epilog="Example: [bold]trainer evaluate mnist tfds:mnist[/bold]")
def evaluate(
    model: ModelArgument,
    first_dataset: DatasetArgument = None,
    dataset: DatasetOption = None,
    engine: Annotated[str, typer.Option(help="litert (what is served) or tensorflow.")] = "litert",
    data_dir: DataDirOption = None,
    report_dir: Annotated[
        Path | None,
        typer.Option(help="Where the report goes (default: report/MODEL-VERSION; other data: …-on-NAME)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a stored model on the images that it has never seen: of a data set, or of its own where none is named."""
    from trainer.evaluate import evaluate as run_evaluate

    spec = either("--dataset", first_dataset, dataset)
    if report_dir is not None and not can_write(report_dir):
        raise InputError(f"--report-dir: {report_dir} cannot be written")
    if report_dir is None and not can_write(REPORTS):
        report_dir = Path(tempfile.mkdtemp(prefix="trainer-report-"))
        log.warning("%s cannot be written: the report goes to %s", REPORTS.absolute(), report_dir)
    result = run_evaluate(model, spec, engine_name=engine, data_dir=data_dir, report_dir=report_dir)
    if as_json:
        print_json(result)
    else:
        cli_output.print_evaluation(model, result)


@app.command(epilog="Example: [bold]trainer predict mnist seven.png[/bold]")
def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="MODEL IMAGE...", help="A model's tag and image files; no MODEL with --url."),
    ],
    url: Annotated[str | None, typer.Option(help="Ask this server instead, for example http://127.0.0.1:3000.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="With --url: the file's first token is sent to the server (default: the variable TRAINER_TOKEN's)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify image files, with a stored model or a running server."""
    from trainer.predict import predict_local, predict_remote
    from trainer.serving.tokens import token_to_send

    if url is None and token_file is not None:
        raise InputError("--token-file: only a server wants a token; --url names it")
    if url is None and len(arguments) < 2:
        raise InputError("predict: a model and at least one image are expected: trainer predict MODEL IMAGE")
    token = ""
    if url is None:
        results = predict_local(arguments[0], [Path(path) for path in arguments[1:]])
    else:
        token = token_to_send(token_file, os.environ)
        results = predict_remote(url, [Path(path) for path in arguments], token)
    _print_each(results, as_json, cli_output.print_prediction)
    if not as_json and not token:  # which is not for a command line
        cli_output.print_after_predict(arguments[0], url)


def _print_each(
    results: Iterable[dict[str, Any] | InputError], as_json: bool, print_one: Callable[[dict[str, Any]], None]
) -> None:
    """Print each result as it comes. Raises InputError with all that failed, in the end."""
    failures = []
    for result in results:
        if isinstance(result, InputError):
            failures.append(str(result))
        elif as_json:
            print_json(result)
        else:
            print_one(result)
    if failures:
        raise InputError("; ".join(failures))


@app.command(epilog="Example: [bold]trainer explain photos cat.jpg[/bold]")
def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's tag.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    output: Annotated[
        Path | None,
        typer.Option(help="A folder, or for one image a .png file.", show_default="IMAGE.explained.png, here"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what in an image spoke for its answer: a picture with a heat map for each image file."""
    from trainer.predict import explain_local

    _print_each(explain_local(model, images, output), as_json, cli_output.print_explanation)


@app.command(epilog="Example: [bold]trainer serve photos[/bold]")
def serve(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model's tag (default: the newest).", show_default=False)
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="BENTOML_HOST", help="The address to listen on; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="BENTOML_PORT", help="Another where this one is taken.")
    ] = 3000,
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--arg", metavar="NAME=VALUE", help="A setting of the server, such as workers=2; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve a stored model over HTTP, to this machine only unless --host says otherwise. Ctrl-C ends it."""
    from trainer.serve import prepare

    launch = prepare(model, host, port, arguments or [])
    log.info("%s", launch)
    launch.run()


@app.command(epilog="Example: [bold]trainer models[/bold]")
def models(as_json: JsonOption = False) -> None:
    """List the models of the store, the newest first."""
    from trainer.artifact.listing import listing

    entries = listing()
    if not as_json:
        cli_output.print_models(entries)
        return
    for entry in entries:
        print_json(entry)


@app.command(epilog="Example: [bold]trainer save runs/mnist-20260101-120000[/bold]")
def save(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run.")],
    name: Annotated[str | None, typer.Option(help="The model's name (default: the run's).")] = None,
    promote: PromoteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish the model of a run folder to the store."""
    from trainer.runs.publish import publish_run

    published = publish_run(run_dir, name, promote=promote)
    if as_json:
        print_json(asdict(published))
    else:
        print_saved(published.tag, published.latest)


@app.command("promote", epilog="Example: [bold]trainer promote mnist:VERSION[/bold]")
def promote_version(
    tag: Annotated[str, typer.Argument(metavar="TAG", help="A version of the store: mnist:VERSION.")],
    as_json: JsonOption = False,
) -> None:
    """Let a model's name mean this version: one that was kept back, or an older one to go back to."""
    from trainer.artifact import store

    promoted, replaced = store.promote(tag)
    before = replaced.tag if replaced else None
    if as_json:
        print_json({"tag": promoted.tag, "replaced": before})
    else:
        cli_output.print_promoted(promoted.tag, before)


@app.command(epilog="Example: [bold]trainer runs --prune[/bold]")
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
    """List the runs, the newest first, each sweep in one line, and how to go on with an unfinished one."""
    from trainer.runs.listing import list_runs
    from trainer.runs.listing import prune as delete_checkpoints

    listed = list_runs(root)
    if prune:
        freed = delete_checkpoints(root)
        if as_json:
            print_json({"pruned_runs": freed[0], "freed_bytes": freed[1]})
        else:
            cli_output.print_pruned(freed, listed)
        return
    if not as_json:
        cli_output.print_runs(listed)
        return
    for one in listed:
        print_json(one.to_dict())


@app.command(epilog="Example: [bold]trainer sweep sweeps/grid.yaml --workers 2 --save-best[/bold]")
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
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the points that failed once more.")] = False,
    save_best: Annotated[
        bool, typer.Option("--save-best", help="Publish the best trial's model to the store.")
    ] = False,
) -> None:
    """Search hyper-parameters with a W&B sweep file, without W&B. Stop it at any time; the same command goes on."""
    from trainer.sweep.cluster import Cluster
    from trainer.sweep.sweep import run_sweep

    of_cluster = {"--trial-cpus": trial_cpus, "--trial-gpus": trial_gpus, "--run-root": run_root}
    if cluster is None and (given := [name for name, value in of_cluster.items() if value is not None]):
        raise InputError(f"{given[0]}: is for the machines of a cluster; --cluster names it")
    run_sweep(
        file,
        searchable(FitConfig),
        trials=trials,
        workers=workers,
        cluster=None if cluster is None else Cluster(cluster, trial_cpus, trial_gpus, run_root),
        start_from=start_from,
        retry_failed=retry_failed,
        save_best=save_best,
    )


@data_app.command("inspect", epilog="Example: [bold]trainer data inspect folder:photos[/bold]")
def data_inspect(
    first_dataset: DatasetArgument = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Where the contact sheet goes (default: contact-sheet-NAME.png).")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with the pictures in question, on which you choose what to do.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write a table (csv:FILE) as --choices has it; no picture is changed.")
    ] = None,
    choices: Annotated[Path | None, typer.Option(help="With --fix: the file that the page has saved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show classes, counts, sizes, rejected files and what may be wrong with the images, and draw a contact sheet."""
    from trainer.data import load
    from trainer.data.contact_sheet import contact_sheet, summarize
    from trainer.data.sources.spec import open_source
    from trainer.data_checks import fix as fixing
    from trainer.data_checks.page import write_page
    from trainer.data_checks.run import examine
    from trainer.data_checks.summary import to_dict
    from trainer.models import suggest

    spec = require(FitConfig, "dataset", either("--dataset", first_dataset, dataset))
    if (fix is None) != (choices is None):
        raise InputError("--fix and --choices go together: --page FILE writes a page that saves your choices")
    source = open_source(spec, data_dir)
    if fix and choices:
        root = fixing.check(fix, source.spec)
    loaded = load(spec, data_dir=data_dir, wish=lambda sizes: suggest(sizes, "none").wish)
    if fix and choices:
        written = fixing.apply(fix, root, loaded, choices)
        if as_json:
            print_json(asdict(written))
        else:
            cli_output.print_fixed(written)
        return
    summary = summarize(loaded)
    sheet = sheet or Path(f"contact-sheet-{loaded.name}.png")
    drawn: Path | None = sheet
    try:
        contact_sheet(loaded, sheet)
    except OSError as error:
        drawn = None
        log.warning("the contact sheet %s cannot be written: %s; --sheet names another place", sheet, error.strerror)
    findings = examine(loaded, source)
    if page:
        try:
            write_page(findings, page, name=loaded.name, spec=spec, data_dir=data_dir, source=source)
        except OSError as error:
            raise InputError(f"--page: {page} cannot be written: {error.strerror}") from error
    if as_json:
        shown = {"contact_sheet": str(drawn) if drawn else None, "page": str(page) if page else None}
        print_json({**summary.to_dict(), **shown, "findings": to_dict(findings)})
        return
    cli_output.print_dataset(summary, drawn)
    cli_output.print_findings(findings, page)
    cli_output.print_after_inspect(spec, data_dir, look=page is None and findings.any)


@cache_app.command("prune", epilog="Example: [bold]trainer cache prune[/bold]")
def cache_prune() -> None:
    """Delete the decoded images that no process is using; they are made again when needed."""
    from trainer.data.cache.entries import prune

    count, size_bytes = prune()
    typer.echo(f"{count} cached data sets deleted, {size_bytes / 1e6:.0f} MB freed")
    print_next(*cli_output.FIRST)


def main() -> None:
    """The console script."""
    set_up_logging()
    sys.exit(run(sys.argv[1:]))


def run(command_line: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    debug = "--debug" in command_line
    try:
        command = get_command(app)
        arguments = normalize_arguments(command_line, flags(command))
        if arguments[:1] == ["help"]:
            arguments = [*arguments[1:], "--help"]
        code = command(arguments, standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        return fail(in_our_words(error))
    return code if isinstance(code, int) else 0
