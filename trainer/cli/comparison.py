"""`trainer compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trainer.cli.common import (
    DataDirOption,
    DatasetOption,
    JsonOption,
    ReportDirOption,
    TokenFileOption,
    report_folder,
    server_token,
)
from trainer.console import print_json, print_line, print_next, print_table, serve_command
from trainer.errors import WorseError

MAX_CLASSES = 20  # shown; the page has all


def compare(
    model_a: Annotated[str, typer.Argument(metavar="MODEL_A", help="The tag of the model that is in use.")],
    model_b: Annotated[
        str | None,
        typer.Argument(metavar="MODEL_B", help="The tag of another one; not needed with --url.", show_default=False),
    ] = None,
    dataset: DatasetOption = None,
    url: Annotated[
        str | None, typer.Option(help="B is the model that answers at this server, for example http://127.0.0.1:3000.")
    ] = None,
    token_file: TokenFileOption = None,
    data_dir: DataDirOption = None,
    report_dir: ReportDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models on images that neither learned from, by default of B's data set. Exit code 4: B is worse."""
    from trainer.compare import compare as run_compare

    result = run_compare(
        model_a,
        model_b,
        dataset,
        url=url,
        token=server_token(url, token_file),
        data_dir=data_dir,
        report_dir=report_folder(report_dir),
    )
    if as_json:
        print_json(result)
    else:
        _print_comparison(result)
    a, b = result["a"], result["b"]
    if result["verdict"] == "worse":
        raise WorseError(
            f"{b['model']} is worse than {a['model']} beyond chance: {b['accuracy']:.1%} right, not "
            f"{a['accuracy']:.1%}, of {result['images']:,} images (p = {result['p_worse']:.2g})"
        )
    if not as_json and url is None:
        print_next(*serve_command(b["model"]))


def _print_comparison(result: Mapping[str, Any]) -> None:
    """Print the metrics of both models, the classes that change, and the verdict."""
    a, b = result["a"], result["b"]
    print_table(
        f"A: {a['model']}, B: {b['model']}, on {result['dataset']}",
        ("", "A", "B"),
        [
            (name, *(_percent(side[key]) for side in (a, b)))
            for name, key in (
                ("right", "accuracy"),
                ("calibration error", "calibration_error"),
                ("sure of (known)", "known_share"),
                ("right where it is sure", "known_accuracy"),
            )
        ]
        + [(f"time for a batch of {size}", *(_milliseconds(side, size) for side in (a, b))) for size in ("1", "32")],
    )
    changed = [change for change in result["classes"].values() if change["a_correct"] != change["b_correct"]]
    if changed:
        changed.sort(key=lambda change: -abs(change["b_correct"] - change["a_correct"]))
        more = f" (of {len(changed)} that change)" if len(changed) > MAX_CLASSES else ""
        print_table(
            f"classes, with their images that are named right{more}",
            ("class", "images", "A", "B", "change"),
            [
                (
                    change["name"],
                    *(f"{change[key]:,}" for key in ("images", "a_correct", "b_correct")),
                    f"{change['b_correct'] - change['a_correct']:+d}",
                )
                for change in changed[:MAX_CLASSES]
            ],
        )
    left_out = [
        f"{result[key]:,} {words}"
        for key, words in (
            ("train_images", "that one of them was trained on"),
            ("other_classes", "of classes that not both have"),
            ("refused_images", "that the server does not take"),
        )
        if result[key]
    ]
    validation = f" ({result['val_images']:,} of them validation images)" if result["val_images"] else ""
    print_line(
        f"compared on {result['images']:,} images that {result['relation']}{validation}; "
        f"left out: {', '.join(left_out) or 'none'}"
    )
    print_line(f"A alone is right for {result['only_a']:,}, B alone for {result['only_b']:,}: {_verdict(result)}")
    print_line(f"these images are in {result['page']}")


def _verdict(result: Mapping[str, Any]) -> str:
    if result["verdict"] == "no difference shown":
        return f"no difference beyond chance (p = {min(result['p_worse'], result['p_better']):.2g})"
    p = result["p_worse" if result["verdict"] == "worse" else "p_better"]
    return f"B is {result['verdict']} beyond chance (p = {p:.2g})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _milliseconds(side: Mapping[str, Any], size: str) -> str:
    return f"{side['batch_ms'][size]:.1f} ms" if side["batch_ms"] else ""
