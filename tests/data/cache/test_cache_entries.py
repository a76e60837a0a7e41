from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer.data.cache.entries import ARRAY, cache_dir, load_array, prune
from trainer.errors import InputError

KEY = {"images": "0123", "weights": "abcd", "size": [160, 160]}
FEATURES = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def never() -> np.ndarray:
    raise AssertionError("it is in the cache")


def entry() -> Path:
    [folder] = [path for path in cache_dir().iterdir() if path.is_dir()]
    return folder


def test_an_array_is_made_once_for_its_key() -> None:
    np.testing.assert_array_equal(load_array(KEY, lambda: FEATURES), FEATURES)
    np.testing.assert_array_equal(load_array(dict(reversed(KEY.items())), never), FEATURES)
    other = load_array(KEY | {"size": [224, 224]}, lambda: FEATURES + 1)
    np.testing.assert_array_equal(other, FEATURES + 1)


def test_a_damaged_array_is_made_again() -> None:
    load_array(KEY, lambda: FEATURES)
    os.truncate(entry() / ARRAY, 100)
    np.testing.assert_array_equal(load_array(KEY, lambda: FEATURES), FEATURES)
    np.testing.assert_array_equal(load_array(KEY, never), FEATURES)


def test_a_full_disk_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        load_array(KEY, lambda: FEATURES)
    assert [path for path in cache_dir().iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set TRAINER_CACHE_DIR to a folder that can be written"):
        load_array(KEY, lambda: FEATURES)


def test_errors_of_making_an_array_are_not_the_cache_s() -> None:
    def make() -> np.ndarray:
        raise OSError(errno.EROFS, "Read-only file system", "/dev/shm")

    with pytest.raises(OSError, match="/dev/shm"):
        load_array(KEY, make)
    np.testing.assert_array_equal(load_array(KEY, lambda: FEATURES), FEATURES)  # the lock is free


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from trainer.data.cache.entries import load_array\n"
        "def make():\n"
        "    with Path(sys.argv[1]).open('a') as file: file.write('made\\n')\n"
        "    time.sleep(1)\n"
        "    return np.arange(3.0)\n"
        "print(load_array({'key': 1}, make).tolist())\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["[0.0, 1.0, 2.0]\n"] * 2
    assert (tmp_path / "log").read_text() == "made\n"


def test_prune_deletes_arrays() -> None:
    load_array(KEY, lambda: FEATURES)
    size = sum(file.stat().st_size for file in entry().iterdir())
    assert prune() == (1, size)
    np.testing.assert_array_equal(load_array(KEY, lambda: FEATURES + 2), FEATURES + 2)
