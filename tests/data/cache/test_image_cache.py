from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from sample_images import image_folder, save_image

from trainer.data.cache import images
from trainer.data.cache.entries import cache_dir, prune
from trainer.data.cache.images import ImageCache, open_or_build
from trainer.data.pixel_request import PixelRequest
from trainer.data.sources.folder import FolderSource
from trainer.data.sources.spec import open_source
from trainer.errors import InputError, RunError
from trainer.images.decode import decode
from trainer.images.orientation import EXIF_ORIENTATION
from trainer.images.pixels import InputPreference, PixelSpec


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")


def opened(folder: Path, request: PixelRequest = PixelRequest()) -> ImageCache:  # noqa: B008 - it is frozen
    return open_or_build(FolderSource(folder), request)


def entries() -> list[str]:
    return sorted(path.name.partition("-")[2] for path in cache_dir().iterdir() if path.is_dir())


def test_rows_are_decoded_images_in_the_source_s_order(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat": 3, "train/dog": 2, "test/dog": 2})
    cache = opened(tmp_path)
    assert cache.class_names == ("cat", "dog")
    assert cache.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert cache.splits == {"train": range(5), "val": range(5, 5), "test": range(5, 7)}
    assert cache.sizes == {(16, 12, 3): 7}
    assert cache.names == [example.name for example in FolderSource(tmp_path).examples()]
    files = [example.data for example in FolderSource(tmp_path).examples()]
    expected = np.stack([decode(Path(str(file)).read_bytes(), cache.pixels) for file in files])
    np.testing.assert_array_equal(cache.read(np.arange(7)), expected)
    rows = np.array([5, 6, 0, 1, 1, 4])
    np.testing.assert_array_equal(cache.read(rows), expected[rows])
    assert cache.read(np.array([], np.int64)).shape == (0, 16, 12, 3)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([((28, 28), "L"), ((28, 28), "L")], (28, 28, 1)),
        ([((64, 48), "RGB"), ((64, 48), "RGB")], (64, 48, 3)),
        ([((28, 28), "L"), ((28, 28), "RGB")], (28, 28, 3)),  # seen after the first guess
        ([((28, 28), "L"), ((28, 30), "L")], (64, 64, 1)),
        ([((28, 28), "L"), ((28, 30), "RGB")], (64, 64, 3)),
        ([((65, 64), "L"), ((65, 64), "L")], (64, 64, 1)),
        ([((7, 9), "L"), ((7, 9), "L")], (64, 64, 1)),
    ],
)
def test_size_and_channels_fit_the_images(
    tmp_path: Path, files: list[tuple[tuple[int, int], str]], expected: tuple[int, int, int]
) -> None:
    for number, (size, mode) in enumerate(files * 2):
        save_image(tmp_path / "ab"[number // 2] / f"{number}.png", size=size, mode=mode)
    pixels = opened(tmp_path).pixels
    assert (pixels.height, pixels.width, pixels.channels) == expected


def drawn(mode: str, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert("P" if mode == "P" else mode)


@pytest.mark.parametrize(("channels", "resize"), [(1, "stretch"), (3, "stretch"), (3, "pad")])
def test_small_images_of_one_size_are_stored_as_they_are_and_read_as_the_decoder_enlarges_them(
    tmp_path: Path, channels: int, resize: str
) -> None:
    for number, (mode, suffix) in enumerate(
        [("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("P", "gif"), ("RGB", "jpg"), ("L", "jpg"), ("RGB", "webp")]
    ):
        path = tmp_path / "ab"[number % 2] / f"{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        drawn(mode, number).save(path)
    request = PixelRequest(
        input_preference=lambda sizes: InputPreference((90, 77), native=False, channels=channels), resize=resize
    )
    cache = opened(tmp_path, request)
    files = [Path(str(example.data)).read_bytes() for example in FolderSource(tmp_path).examples()]
    expected = np.stack([decode(data, PixelSpec(90, 77, channels, resize)) for data in files])
    np.testing.assert_array_equal(cache.read(np.arange(len(files))), expected)
    np.testing.assert_array_equal(cache.read(np.array([5, 1])), expected[[5, 1]])
    assert (cache.pixels.shape, cache.stored.shape) == ((90, 77, channels), (20, 30, channels))
    # A larger size needs no other entry; a smaller one does.
    opened(tmp_path, PixelRequest((160, 160), input_preference=request.input_preference))
    assert entries() == [f"20x30x{channels}"]
    opened(tmp_path, PixelRequest((19, 40), input_preference=request.input_preference))
    assert entries() == [f"19x40x{channels}", f"20x30x{channels}"]


@pytest.mark.parametrize("other", ["turned", "size"])
def test_images_that_enlarging_would_change_are_stored_as_they_are_used(tmp_path: Path, other: str) -> None:
    for number in range(4):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        drawn("RGB", number).save(path)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 3
    odd = drawn("RGB", 9)
    odd.save(tmp_path / "b" / "9.jpg", exif=exif) if other == "turned" else odd.resize((31, 20)).save(
        tmp_path / "b" / "9.jpg"
    )
    cache = opened(tmp_path, PixelRequest((160, 120)))
    files = [Path(str(example.data)).read_bytes() for example in FolderSource(tmp_path).examples()]
    expected = np.stack([decode(data, PixelSpec(160, 120, 3)) for data in files])
    np.testing.assert_array_equal(cache.read(np.arange(len(files))), expected)
    assert entries() == ["160x120x3"]


def test_a_requested_size_is_kept(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2}, mode="L")
    assert opened(tmp_path, PixelRequest(image_size=(20, 24))).pixels == PixelSpec(20, 24, 1)
    assert opened(tmp_path, PixelRequest(normalize="mnist")).pixels == PixelSpec(28, 28, 1, normalize="mnist")
    assert opened(tmp_path, PixelRequest(pixels=PixelSpec(9, 9, 3))).pixels == PixelSpec(9, 9, 3)
    with pytest.raises(InputError, match="makes images of 28x28"):
        opened(tmp_path, PixelRequest(image_size=(32, 32), normalize="mnist"))


def test_the_network_s_preference_applies_without_a_size(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2}, mode="L")
    photo = InputPreference(size=(40, 48), native=False, channels=3)
    assert opened(tmp_path, PixelRequest(input_preference=lambda _: photo)).pixels == PixelSpec(40, 48, 3)
    assert opened(tmp_path, PixelRequest(image_size=(20, 24), input_preference=lambda _: photo)).pixels == PixelSpec(
        20, 24, 3
    )


def test_an_entry_is_reused_while_nothing_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    first = opened(tmp_path)
    assert "decoded 4 images to 16x12x3" in caplog.text
    caplog.clear()
    # The native sizes are known by now, and with them the entry of any request.
    for request in (PixelRequest(), PixelRequest(image_size=(16, 12)), PixelRequest(pixels=first.pixels)):
        assert opened(tmp_path, request).fingerprint == first.fingerprint
    assert caplog.text.count("reusing 4 decoded images") == 3
    assert "decoded 4 images to" not in caplog.text
    assert entries() == ["16x12x3"]


def test_an_entry_is_written_again_when_something_changed(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    first = opened(tmp_path)
    save_image(tmp_path / "a" / "000.png", seed=77)
    second = opened(tmp_path)
    assert second.fingerprint != first.fingerprint
    assert (second.read(np.array([0])) != first.read(np.array([0]))).any()
    os.utime(tmp_path / "a" / "000.png", ns=(1, 1))  # written again with the same images
    assert opened(tmp_path).fingerprint == second.fingerprint


def overwrite(folder: Path) -> None:
    status = (folder / "a" / "000.bmp").stat()
    (folder / "a" / "000.bmp").write_bytes((folder / "b" / "000.bmp").read_bytes())
    os.utime(folder / "a" / "000.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_copy(folder: Path) -> None:  # as rsync -t and tar do
    shutil.copy2(folder / "b" / "000.bmp", folder / "new")
    (folder / "new").replace(folder / "a" / "000.bmp")


def exchange(folder: Path) -> None:
    (folder / "a" / "000.bmp").rename(folder / "a" / "other")
    (folder / "b" / "000.bmp").rename(folder / "a" / "000.bmp")
    (folder / "a" / "other").rename(folder / "b" / "000.bmp")


@pytest.mark.parametrize("change", [overwrite, replace_by_copy, exchange])
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_files_exchanged_with_equal_sizes_and_times_are_noticed(
    tmp_path: Path, change: Callable[[Path], None], kind: str
) -> None:
    for number, name in enumerate(("a/000.bmp", "a/001.bmp", "b/000.bmp", "b/001.bmp")):
        save_image(tmp_path / name, seed=number)
        os.utime(tmp_path / name, ns=(10**9, 10**9))
    (tmp_path / "table.csv").write_text("image,label\na/000.bmp,a\na/001.bmp,a\nb/000.bmp,b\nb/001.bmp,b\n")
    spec = f"csv:{tmp_path}/table.csv" if kind == "csv" else f"folder:{tmp_path}"
    expected = Image.open(tmp_path / "b" / "000.bmp").convert("RGB")
    open_or_build(open_source(spec), PixelRequest())
    change(tmp_path)
    os.utime(tmp_path / "a" / "000.bmp", ns=(10**9, 10**9))
    cache = open_or_build(open_source(spec), PixelRequest())
    np.testing.assert_array_equal(cache.read(np.array([0]))[0], np.asarray(expected))


@pytest.mark.parametrize("library", ["pillow", "libjpeg_turbo", "libheif", "pillow-heif"])
def test_images_are_decoded_again_by_another_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, caplog: pytest.LogCaptureFixture
) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    opened(tmp_path)
    versions = images.decoder_versions()
    assert any(version.startswith(f"{library} ") for version in versions)
    changed = tuple(f"{library} 99" if version.startswith(f"{library} ") else version for version in versions)
    monkeypatch.setattr(images, "decoder_versions", lambda: changed)
    caplog.clear()
    opened(tmp_path)
    assert "decoded 4 images" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "no labels", "bad index", "other index", "names", "no images"])
def test_a_damaged_entry_is_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    fingerprint = opened(tmp_path).fingerprint
    [entry] = [path for path in cache_dir().iterdir() if path.is_dir()]
    if damage == "truncated":
        os.truncate(entry / "images.bin", 100)
    elif damage == "no labels":
        (entry / "labels.npy").write_bytes(b"")
    elif damage == "bad index":
        (entry / "index.json").write_text("{")
    elif damage == "other index":
        (entry / "index.json").write_text(json.dumps({"labels": ["a"]}))
    elif damage == "names":
        os.truncate(entry / "names.json", 10)
    else:
        (entry / "images.bin").unlink()
    cache = opened(tmp_path)
    assert "is damaged and is written again" in caplog.text
    assert cache.fingerprint == fingerprint
    assert cache.read(np.arange(4)).any(axis=(1, 2, 3)).all()


def test_a_writer_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    opened(tmp_path)
    assert prune()[0] == 1
    [lock] = cache_dir().glob("*.lock")
    caplog.clear()
    waiting = threading.Thread(target=opened, args=(tmp_path,))
    with FileLock(lock):
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert entries() == []
    waiting.join(30)
    assert entries() == ["16x12x3"]
    assert "waiting for another process" in caplog.text


def test_the_rest_of_a_killed_writer_is_replaced(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    opened(tmp_path)
    [entry] = [path for path in cache_dir().iterdir() if path.is_dir()]
    entry.rename(entry.with_suffix(".tmp"))
    os.truncate(entry.with_suffix(".tmp") / "images.bin", 10)
    assert len(opened(tmp_path)) == 4
    assert entries() == ["16x12x3"]


def test_prune_deletes_entries_that_are_not_being_written(tmp_path: Path) -> None:
    assert prune() == (0, 0)
    for name in ("one", "two"):
        image_folder(tmp_path / name, {"a": 2, "b": 2})
    reader = opened(tmp_path / "one")
    before = reader.read(np.arange(4))
    opened(tmp_path / "one", PixelRequest(image_size=(8, 8)))
    lock = next(cache_dir().glob("*.lock"))
    with FileLock(lock):
        opened(tmp_path / "two")
        count, size_bytes = prune()
    assert count == 1
    assert size_bytes > 4 * 16 * 12 * 3
    assert prune()[0] == 2
    assert entries() == []
    np.testing.assert_array_equal(reader.read(np.arange(4)), before)  # the file stays until it is closed


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    cache = opened(tmp_path)
    [entry] = [path for path in cache_dir().iterdir() if path.is_dir()]
    os.truncate(entry / "images.bin", 100)
    with pytest.raises(RunError, match="truncated"):
        cache.read(np.arange(4))


def damage_files(folder: Path) -> dict[str, str]:
    """Spoil five files of class `a`; path → what its reason says."""
    good = (folder / "a" / "000.png").read_bytes()
    save_image(folder / "a" / "jpeg.jpg", size=(64, 64))
    jpeg = (folder / "a" / "jpeg.jpg").read_bytes()
    (folder / "a" / "jpeg.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "a" / "001.png").write_bytes(b"")
    (folder / "a" / "002.png").write_bytes(good[:60] + bytes([good[60] ^ 255]) + good[61:])
    (folder / "a" / "003.png").write_text("a text")
    (folder / "a" / "004.png").unlink()
    (folder / "a" / "004.png").symlink_to("nowhere")
    Image.new("1", (5001, 5000)).save(folder / "a" / "huge.png")
    return {
        "a/001.png": "empty",
        "a/002.png": "corrupt",
        "a/003.png": "not an image",
        "a/004.png": "cannot be read: No such file",
        "a/huge.png": "too many pixels",
        "a/jpeg.jpg": "truncated",
    }


def test_a_few_bad_files_are_skipped_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"a": 300, "b": 300}, size=(8, 8))
    bad = damage_files(tmp_path)
    cache = opened(tmp_path)
    assert {rejected.path for rejected in cache.rejected} == bad.keys()
    for rejected in cache.rejected:
        assert bad[rejected.path] in rejected.reason
        assert f"skipped {rejected.path}: {rejected.reason}" in caplog.text
    assert cache.pixels == PixelSpec(8, 8, 3)  # the sizes of rejected files do not count
    assert len(cache) == 602 - 6
    assert opened(tmp_path).rejected == cache.rejected


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_images_are_not_kept_while_a_file_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    image_folder(tmp_path, {"a": 120, "b": 120}, size=(8, 8))
    open_file = os.open

    def failing(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("007.png"):
            raise OSError(reason, os.strerror(reason))
        return open_file(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        cache = opened(tmp_path)
    assert [(file.path, file.reason) for file in cache.rejected] == [
        (f"{name}/007.png", f"cannot be read: {os.strerror(reason)}") for name in "ab"
    ]
    assert len(cache.read(np.arange(238))) == 238  # also from an entry that is not kept
    assert len(cache.names) == 238
    assert "the decoded images are not kept" in caplog.text
    assert entries() == []
    assert len(opened(tmp_path)) == 240
    assert entries() == ["8x8x3"]


def test_rejected_files_are_logged_at_every_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_folder(tmp_path, {"a": 120, "b": 120}, size=(8, 8))
    (tmp_path / "a" / "007.png").write_bytes(b"")
    (tmp_path / "b" / "gone.png").symlink_to("nowhere")
    for done in ("decoded 239 images", "reusing 239 decoded images"):
        caplog.clear()
        opened(tmp_path)
        assert done in caplog.text
        assert "skipped a/007.png: the image is empty" in caplog.text
        assert "skipped b/gone.png: cannot be read: No such file" in caplog.text


@pytest.mark.parametrize(("good", "bad", "refused"), [(48, 5, False), (48, 6, True), (594, 6, False), (593, 7, True)])
def test_more_than_one_percent_and_than_five_bad_files_are_refused(
    tmp_path: Path, good: int, bad: int, refused: bool
) -> None:
    image_folder(tmp_path, {"a": good // 2, "b": good - good // 2}, size=(8, 8))
    for number in range(bad):
        (tmp_path / "a" / f"bad{number}.png").write_bytes(b"")
    for _ in range(2):  # decoded, then from the cache
        if not refused:
            assert (len(opened(tmp_path)), len(opened(tmp_path).rejected)) == (good, bad)
            continue
        with pytest.raises(InputError) as error:
            opened(tmp_path)
        message = (
            f"{bad} of {good + bad} images cannot be used, and at most 1 % or 5 are skipped: a/bad0.png (the image"
        )
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert len(open_or_build(FolderSource(tmp_path), PixelRequest(), any_rejected=True)) == good


def test_a_folder_of_bad_files_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 2 images cannot be used"):
        opened(tmp_path)


def test_a_class_that_loses_its_only_image_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 110, "b": 1}, size=(8, 8))
    (tmp_path / "b" / "000.png").write_bytes(b"")
    with pytest.raises(InputError, match="the class 'b' has no image that can be used"):
        opened(tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path / "data", {"a": 2, "b": 2})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set TRAINER_CACHE_DIR to a folder that can be written"):
        opened(tmp_path / "data")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path)
    assert entries() == []


def test_more_than_the_disk_holds_is_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path, {"a": 2, "b": 2})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"4 images of 16x12x3 take 0\.0 GB, and .* has 0\.0 GB left; make room"):
        opened(tmp_path)
    assert entries() == []
