"""A store and a cache that the tests of a module share: fitted once, and copied for each test that changes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def fitting_in(folder: Path) -> Iterator[None]:
    """Commands use `folder/store` and `folder/cache`, and run in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "store"))
        patch.setenv("TRAINER_CACHE_DIR", str(folder / "cache"))
        patch.setenv("BENTOML_DO_NOT_TRACK", "True")
        patch.chdir(folder)
        yield


def use_copy(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in `tmp_path`, with a copy of the store in `fitted`, and with its cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(fitted / "cache"))
    monkeypatch.setenv("BENTOML_HOME", str(shutil.copytree(fitted / "store", tmp_path / "store")))
