"""`trainer predict`, `trainer explain` and `trainer serve`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.common import JsonOption, TokenFileOption, server_token
from trainer.console import print_json, print_line, print_next, serve_command
from trainer.errors import InputError, TrainerError
from trainer.text import counted

if TYPE_CHECKING:
    from trainer.predict.files import Answer

MAX_NAMED = 20  # failures in a message

log = logging.getLogger("trainer")


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL IMAGE...", help="A model's tag, and image files or folders of them; no MODEL with --url."
        ),
    ],
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a table, a row for each image; continued after a stop. -: to stdout."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead, for example http://127.0.0.1:3000.")] = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify image files, and all images of folders, with a stored model or a running server."""
    from trainer.predict.files import LocalFiles, find_images
    from trainer.predict.remote import RemoteFiles
    from trainer.predict.table import write_answers

    if csv_file and as_json:
        raise InputError("--csv and --json: the answers are either a table or JSON; leave out one of them")
    token = server_token(url, token_file)
    if url is None and len(arguments) < 2:
        raise InputError("predict: a model and at least one image are expected: trainer predict MODEL IMAGE")
    model = LocalFiles(arguments[0]) if url is None else RemoteFiles(url, token)
    paths = find_images([Path(name) for name in (arguments[1:] if url is None else arguments)])
    if csv_file:
        write_answers(csv_file, model.tag, paths, model.predict)
        return
    _print_each(model.predict(paths), as_json, _print_prediction)
    if as_json:
        return
    if url is None:
        print_next(*serve_command(arguments[0]))
    elif not token:  # a command line is no place for a token
        print_next("curl", "--data-binary", f"@{paths[0]}", f"{url.rstrip('/')}/predict")


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's tag.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    output: Annotated[
        Path | None,
        typer.Option(help="A folder, or for one image a .png file.", show_default="IMAGE.explained.png, here"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a saliency map for each image file: which parts of it support the prediction."""
    from trainer.predict.explain import explain_files
    from trainer.predict.model import load_model

    _print_each(explain_files(load_model(model), images, output), as_json, _print_explanation)


def serve(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model's tag (default: the newest).", show_default=False)
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="BENTOML_HOST", help="The address to listen on; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, envvar=["BENTOML_PORT", "PORT"], help="Another where this one is taken.")
    ] = 3000,
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--arg", metavar="NAME=VALUE", help="A setting of the server, such as workers=2; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve a stored model over HTTP. Only this machine reaches it unless --host says otherwise; Ctrl-C ends it."""
    from trainer.serve import prepare

    launch = prepare(model, host, port, arguments or [])
    log.info("%s", launch)
    launch.run()


def _print_each(answers: Iterable[Answer], as_json: bool, print_answer: Callable[[dict[str, Any]], None]) -> None:
    """Print each answer as it comes. Raises one InputError at the end for all failures."""
    failures = []
    for answer in answers:
        if isinstance(answer, TrainerError):
            failures.append(str(answer))
        elif as_json:
            print_json(answer)
        else:
            print_answer(answer)
    if failures:
        more = f"; and {counted(len(failures) - MAX_NAMED, 'more image')}" if len(failures) > MAX_NAMED else ""
        raise InputError("; ".join(failures[:MAX_NAMED]) + more)


def _print_prediction(prediction: Mapping[str, Any]) -> None:
    from trainer.predict.model import summary

    known = prediction.get("known", True)  # old servers do not say
    print_line(f"{prediction['path']}: {summary(prediction['label'], prediction['probability'], known=known)}")


def _print_explanation(prediction: Mapping[str, Any]) -> None:
    _print_prediction(prediction)
    print_line(f"  saliency map: {prediction['explanation']}")
