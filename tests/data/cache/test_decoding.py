from __future__ import annotations

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_images import image_folder, save_image

from trainer.data.cache import decoding
from trainer.data.sources.base import Example
from trainer.data.sources.folder import FolderSource
from trainer.errors import RunError
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec

PIXELS = PixelSpec(16, 12, 3)


def test_processes_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 300, "dog": 300})
    (tmp_path / "dog" / "100.png").write_bytes(b"")
    examples = list(FolderSource(tmp_path).examples())
    alone = list(decoding.decode_all(examples, PIXELS, 1))
    together = list(decoding.decode_all(examples, PIXELS, 2))
    assert [len(chunk) for chunk, _ in alone] == [256, 256, 88]
    for (chunk, one), (other_chunk, other) in zip(alone, together, strict=True):
        assert chunk == other_chunk
        np.testing.assert_array_equal(one.images, other.images)
        assert (one.sizes, one.rejected) == (other.sizes, other.rejected)
    assert alone[1][1].rejected == {100 + 300 - 256: "the image is empty: 0 bytes"}
    file = tmp_path / "cat" / "007.png"
    np.testing.assert_array_equal(alone[0][1].images[7], decode(file.read_bytes(), PIXELS))


def test_chunks_of_large_files_are_short() -> None:
    examples = [Example("train", 0, str(number), b"", 1 << 20) for number in range(10)]
    assert [len(chunk) for chunk, _ in decoding.decode_all(examples, PIXELS, 1)] == [4, 4, 2]


def test_a_file_that_grew_since_it_was_listed_is_read_whole(tmp_path: Path) -> None:
    file = save_image(tmp_path / "one.png")
    example = Example("train", 0, "one", str(file), 10)
    [(_, decoded)] = decoding.decode_all([example], PIXELS, 1)
    np.testing.assert_array_equal(decoded.images[0], decode(file.read_bytes(), PIXELS))


def test_the_size_is_that_of_the_first_image_that_can_be_decoded(tmp_path: Path) -> None:
    missing = Example("train", 0, "missing", str(tmp_path / "missing.png"), 5)
    text = Example("train", 0, "text", b"no image", 8)
    file = save_image(tmp_path / "gray.png", size=(20, 30), mode="L")
    good = Example("train", 0, "gray", str(file), file.stat().st_size)
    assert decoding.first_native([missing, text, good]) == decoding.NativeFacts({(20, 30, 1)})
    assert decoding.first_native([missing, text]) == decoding.NativeFacts()


def test_workers_do_not_import_tensorflow() -> None:
    code = "import sys, trainer.data.cache.decoding; sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_killed_worker_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = list(FolderSource(image_folder(tmp_path, {"cat": 1, "dog": 1})).examples())
    monkeypatch.setattr(decoding, "start_worker", os.abort)
    with pytest.raises(RunError, match="was killed"):
        list(decoding.decode_all(examples, PIXELS, 2))


@pytest.mark.parametrize("reason", [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EACCES])
@pytest.mark.parametrize("room", [0, 6])  # six are what a pool takes before it starts its first worker
def test_one_process_decodes_without_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int, room: int
) -> None:
    make = importlib.import_module("_multiprocessing").SemLock
    made: list[object] = []

    def lock(*arguments: Any, **named: Any) -> object:  # lies in /dev/shm
        if len(made) == room:
            raise OSError(reason, os.strerror(reason))
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(importlib.import_module("joblib.externals.loky.backend.synchronize"), "_SemLock", lock)
    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", lock)
    examples = list(FolderSource(image_folder(tmp_path, {"cat": 300, "dog": 1})).examples())
    assert [len(chunk) for chunk, _ in decoding.decode_all(examples, PIXELS, 2)] == [256, 45]
    assert f"decoding in one process: /dev/shm cannot be used ({os.strerror(reason)})" in caplog.text
