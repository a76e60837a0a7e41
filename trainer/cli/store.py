"""`trainer models`, `trainer save` and `trainer promote`: the BentoML model store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.common import FIRST_FIT, JsonOption, PromoteOption, format_age, format_size, shorten_spec
from trainer.console import print_json, print_line, print_next, print_saved, print_table, serve_command


def models(as_json: JsonOption = False) -> None:
    """List the models of the store, the newest first."""
    from trainer.artifact.listing import list_models

    entries = list_models()
    if not as_json:
        _print_models(entries)
        return
    for entry in entries:
        print_json(entry)


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


def promote(
    tag: Annotated[str, typer.Argument(metavar="TAG", help="A version of the store: mnist:VERSION.")],
    as_json: JsonOption = False,
) -> None:
    """Promote a version: its name alone then means this version. It may be an older one, or one that was kept back."""
    from trainer.artifact import store
    from trainer.runs.promotion import compare_stored, describe

    promoted, replaced = store.promote(tag)
    before = replaced.tag if replaced else None
    if as_json:
        print_json({"tag": promoted.tag, "replaced": before})
        return
    if replaced and before != promoted.tag and (compared := compare_stored(replaced.path, promoted.path)):
        print_line(f"{describe(compared)}{'; clearly worse' if compared.is_worse else ''}")
    _print_promoted(promoted.tag, before)


def _print_models(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print the entries of `list_models` as a table, and what to do next."""
    if not entries:
        print_line("the store is empty")
        print_next(*FIRST_FIT)
        return
    print_table(
        "models (*: the promoted version), with their accuracy on validation images (val), which choose, and test "
        "images, which judge",
        ("tag", "data", "val / test", "size", "age"),
        [
            (
                f"{entry['tag']} *" if entry["latest"] else entry["tag"],
                "cannot be read" if entry["error"] else shorten_spec(entry["dataset"]),
                _accuracies(entry),
                format_size(entry["size_bytes"]),
                format_age(entry["created"]),
            )
            for entry in entries
        ],
        whole=True,
    )
    for entry in entries:
        if entry["error"]:
            print_line(f"{entry['error']}; `bentoml models delete {entry['tag']}` takes it away")
        if entry["not_promoted"]:
            print_line(f"{entry['tag']} is not promoted: {'; '.join(entry['not_promoted'])}")
    print_next(*_next_command([entry for entry in entries if not entry["error"]]))


def _accuracies(entry: Mapping[str, Any]) -> str:
    if entry["test_accuracy"] is None:
        return ""
    return f"{100 * entry['val_accuracy']:.2f} / {entry['test_accuracy']:.2%}"


def _next_command(readable: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Serve the newest promoted model, or one that can be promoted without doubt; else promote the newest."""
    candidates = [entry for entry in readable if not entry["not_promoted"]]
    if candidates:
        return serve_command(min(candidates, key=lambda entry: not entry["latest"])["tag"])
    return ("trainer", "promote", readable[0]["tag"]) if readable else FIRST_FIT


def _print_promoted(tag: str, replaced: str | None) -> None:
    name = tag.partition(":")[0]
    before = "" if replaced in (tag, None) else f", no longer {replaced}"
    print_line(f"{name} now means {tag}{before}; a running server goes on with what it has")
    print_next(*serve_command(name))
