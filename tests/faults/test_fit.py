"""A whole fit, from the cache to the store.

A network of one layer: what is proven is the order of the writes, and that a run goes on from each. It has 360 writes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operation import Operation, check
from system_calls import is_supported
from watched_process import Ended, trainer

from trainer.artifact import load, store
from trainer.data.cache.images import ImageCache
from trainer.data.pixel_request import PixelRequest
from trainer.errors import ArtifactError
from trainer.runs.run_folder import read_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_supported(), reason="needs seccomp's user notifications: Linux 5.6, x86-64"),
]

EPOCHS = 3
FIT = ("fit", "builtin:digits", "--model=tiny", "--limit=200", f"--epochs={EPOCHS}", "--precision=float32")
OPTIONS = ("--quantize=none", "--run-dir=run", "--json", "--events")
VARYING = ("seconds", "train_seconds", "images_per_second", "tag", "latest")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home" / "store"))
    (tmp_path / "home" / "work").mkdir(parents=True)
    return tmp_path / "home"


def part_of_a_store(home: Path) -> Iterator[str]:
    """Versions, and what `latest` means, that are not whole."""
    for model in store.models():
        try:
            load(model.path)
        except ArtifactError as error:
            yield str(error)
    for latest in (home / "store" / "models").glob("*/latest"):
        if not (latest.parent / latest.read_text() / "model.yaml").exists():
            yield f"{latest} names {latest.read_text()!r}"


def read(home: Path) -> str:
    """Whatever a reader of store, cache and run folder would see in part."""
    found = list(part_of_a_store(home))
    for entry in (home / "cache").glob("*-*"):
        if entry.suffix != ".tmp":
            ImageCache(entry, PixelRequest())
    if (home / "work" / "run" / "run.json").exists():
        run = read_run(home / "work" / "run")
        if run["state"] != "running":
            load(home / "work" / "run" / "export")
    return "; ".join(found)


def result(home: Path, ended: Ended) -> dict[str, Any]:
    """The result without what differs from run to run; the store has it, once."""
    *_, found = (json.loads(line) for line in ended.out.splitlines())
    (model,) = store.models()
    assert model.is_latest
    assert (model.path.parent / "latest").read_text() == model.path.name
    assert found["tag"] == found["latest"] == model.tag
    return {name: value for name, value in found.items() if name not in VARYING}


def epochs_in(out: str) -> int:
    """Epochs that a run has trained and validated."""
    return out.count('"event": "epoch"')


def test_fit(home: Path, sample: random.Random | None) -> None:
    check(Operation(home, trainer, (*FIT, *OPTIONS), read, result, epochs_in), sample, kills=2, errors=1)
