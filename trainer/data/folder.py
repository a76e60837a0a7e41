"""`folder:PATH`: `PATH/<class>/*` or `PATH/{train,val,test}/<class>/*`, nested folders inside a class included."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from trainer.config import InputError, slug
from trainer.data.source import SPLIT_NAMES, SPLITS, Example

log = logging.getLogger("trainer")

# Tells images from the rest without opening them; the decoder then goes by the bytes alone.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")


class FolderSource:
    """The images under a folder; class names are folder names, sorted by code point.

    Hidden files and folders (leading dot) and files that are no images by their suffix are ignored and
    counted. Raises InputError for a folder that cannot be read, fewer than two classes, a class without
    images, or a class in val or test that train does not have.
    """

    default_normalize = "none"

    def __init__(self, path: Path) -> None:
        root = path.resolve()
        self.spec = f"folder:{root}"
        self.name = slug(root.name)
        self.ignored = 0
        self._root = str(root)
        try:
            self._read(root)
        except OSError as error:
            raise InputError(f"--dataset: {error.filename} cannot be read: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._examples)

    def examples(self) -> Iterator[Example]:
        """By split, class and path, each sorted by code point."""
        return iter(self._examples)

    def _read(self, root: Path) -> None:
        folders = self._split_folders(root)
        self.labels = tuple(sorted({name for split, name in folders if split == "train"}))
        label_of = {name: label for label, name in enumerate(self.labels)}
        for split, name in folders:
            if name not in label_of:
                raise InputError(
                    f"--dataset: {root} has the class {name!r} in {split} but not in train; "
                    f"train has {_some(self.labels)}"
                )
        if len(self.labels) < 2:
            found = f"only one class folder, {self.labels[0]!r}," if self.labels else "no class folders"
            raise InputError(f"--dataset: {root} has {found} where at least two are expected (PATH/<class>/<image>)")
        self._examples: list[Example] = []
        digest = hashlib.sha256(os.fsencode(root))
        for (split, name), paths in sorted(folders.items(), key=lambda item: _split_order(item[0])):
            count = len(self._examples)
            for path in paths:
                self._read_class(path, split, label_of[name], digest)
            if split == "train" and count == len(self._examples):
                raise InputError(
                    f"--dataset: the class folder {paths[0]} has no images ({', '.join(IMAGE_SUFFIXES)} "
                    "are read); add some or remove the folder"
                )
        self.fingerprint = digest.hexdigest()

    def _split_folders(self, root: Path) -> dict[tuple[str, str], list[str]]:
        """(split, class) → its folders. Without split folders, everything is train."""
        classes = self._subfolders(str(root))
        train = os.path.join(root, "train")
        beside = {name for name in classes if name in SPLIT_NAMES} - {"train"}
        # A class may be called `train` too: then it holds images itself, or no other split stands beside it.
        is_split = (
            "train" in classes
            and (bool(beside) or len(classes) == 1)
            and any(entry.is_dir() for entry in _entries(train))
            and not any(_is_image(entry) for entry in _entries(train))
        )
        if not is_split:
            return {("train", name): [os.path.join(root, name)] for name in classes}
        folders: dict[tuple[str, str], list[str]] = {}
        for folder in classes:
            if folder not in SPLIT_NAMES:
                log.warning("%s: %r is beside train and is not read", root, folder)
                self.ignored += 1
                continue
            names = self._subfolders(os.path.join(root, folder))
            if not names:
                log.warning("%s has no class folders and is not read", os.path.join(root, folder))
            for name in names:
                path = os.path.join(root, folder, name)
                folders.setdefault((SPLIT_NAMES[folder], name), []).append(path)
        return folders

    def _subfolders(self, path: str) -> list[str]:
        """The names of the folders in `path`; everything else there has no class and is ignored."""
        names = []
        for entry in _entries(path):
            if entry.is_dir() and not entry.name.startswith("."):
                names.append(_checked(entry.name, path))
            else:
                self.ignored += 1
        return names

    def _read_class(self, folder: str, split: str, label: int, digest: hashlib._Hash) -> None:
        """Append the images under `folder`, and what tells whether one has changed to `digest`."""
        start = len(self._root) + 1
        for entry in _entries(folder):
            if entry.name.startswith("."):
                self.ignored += 1
            elif entry.is_dir():
                if not (entry.is_symlink() and _is_loop(entry.path)):
                    self._read_class(entry.path, split, label, digest)
            elif _is_image(entry):
                try:
                    stat = entry.stat()
                    size, changed = stat.st_size, stat.st_mtime_ns
                except OSError:  # a broken link: the decoder will name it
                    size, changed = 0, 0
                name = entry.path[start:]
                digest.update(os.fsencode(f"{name}\0{size}\0{changed}\0"))
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")  # not every name is UTF-8
                self._examples.append(Example(split, label, shown, entry.path, size))
            else:
                self.ignored += 1


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A pipe or a device would block who opens it; a broken link is an image that cannot be read.
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and (entry.is_file() or entry.is_symlink())


def _is_loop(link: str) -> bool:
    """Whether a link to a folder points back at one that it lies in."""
    return os.path.commonpath([os.path.realpath(link), os.path.realpath(os.path.dirname(link))]) == (
        os.path.realpath(link)
    )


def _checked(name: str, path: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--dataset: {path} has a class folder whose name is not UTF-8: {name!r}") from error
    return name


def _split_order(folder: tuple[str, str]) -> tuple[int, str]:
    return SPLITS.index(folder[0]), folder[1]


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
