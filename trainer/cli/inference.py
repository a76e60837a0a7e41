"""`trainer predict`, `trainer explain` and `trainer serve`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.common import JsonOption
from trainer.console import print_json, print_line, print_next, serve_command
from trainer.errors import InputError

log = logging.getLogger("trainer")


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
    if url is None:
        _print_each(predict_local(arguments[0], [Path(path) for path in arguments[1:]]), as_json, _print_prediction)
        if not as_json:
            print_next(*serve_command(arguments[0]))
        return
    token = token_to_send(token_file, os.environ)
    _print_each(predict_remote(url, [Path(path) for path in arguments], token), as_json, _print_prediction)
    if not as_json and not token:  # a command line is no place for a token
        print_next("curl", "--data-binary", f"@{arguments[0]}", f"{url.rstrip('/')}/predict")


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
    from trainer.predict import explain_local

    _print_each(explain_local(model, images, output), as_json, _print_explanation)


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


def _print_each(
    results: Iterable[dict[str, Any] | InputError], as_json: bool, print_result: Callable[[dict[str, Any]], None]
) -> None:
    """Print each result as it comes. Raises one InputError at the end for all failures."""
    failures = []
    for result in results:
        if isinstance(result, InputError):
            failures.append(str(result))
        elif as_json:
            print_json(result)
        else:
            print_result(result)
    if failures:
        raise InputError("; ".join(failures))


def _print_prediction(prediction: Mapping[str, Any]) -> None:
    doubt = "" if prediction.get("known", True) else "; not sure: perhaps none of the classes"
    print_line(f"{prediction['path']}: {prediction['label']} ({prediction['probability']:.2%}{doubt})")


def _print_explanation(prediction: Mapping[str, Any]) -> None:
    _print_prediction(prediction)
    print_line(f"  saliency map: {prediction['explanation']}")
