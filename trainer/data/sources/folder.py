"""`folder:PATH`: `PATH/<class>/*` or `PATH/{train,val,test}/<class>/*`, nested folders inside a class included."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainer.data.sources.base import SPLIT_NAMES, SPLITS, Example
from trainer.data.sources.image_files import IMAGE_SUFFIXES, is_image_file, is_junk, suffix
from trainer.errors import InputError
from trainer.names import slug

log = logging.getLogger("trainer")


class FolderSource:
    """The images under a folder; class names are folder names (in Unicode's composed form), sorted by code point.

    Hidden files and folders, what network disks and operating systems leave, and files that are no images by
    their suffix (by their bytes, where they have none) are ignored and counted; the latter with a warning.
    Raises InputError for a folder that cannot be read, no images, two class folders whose names look alike, or
    divisions that are called neither train, val nor test; and `for_training`, for fewer than two classes, a class without
    images, a class in val or test that train does not have, or val or test without train.
    """

    default_normalize = "none"

    def __init__(self, path: Path, *, for_training: bool = True) -> None:
        root = path.resolve()
        self._to_learn = for_training
        self.spec = f"folder:{root}"
        self.name = slug(root.name)
        self.ignored = 0
        self._root = str(root)
        self._others: Counter[str] = Counter()  # suffix, or "" → files in class folders that are no images
        self._outside = 0  # images without a class
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
        self.class_names = tuple(sorted({name for split, name in folders if split == "train" or not self._to_learn}))
        label_of = {name: label for label, name in enumerate(self.class_names)}
        for split, name in folders:
            if name not in label_of:
                raise InputError(
                    f"--dataset: {root} has the class {name!r} in {split} but not in train; "
                    f"train has {_some(self.class_names)}"
                )
        least = 2 if self._to_learn else 1
        if len(self.class_names) < least:
            found = f"only one class folder, {self.class_names[0]!r}," if self.class_names else "no class folders"
            raise InputError(
                f"--dataset: {root} has {found} where at least {'two are' if self._to_learn else 'one is'} expected "
                "(PATH/<class>/<image>)"
            )
        self._examples: list[Example] = []
        digest = hashlib.sha256(os.fsencode(root))
        for (split, name), paths in sorted(folders.items(), key=lambda item: _split_order(item[0])):
            count, others = len(self._examples), self._others.copy()
            for path in paths:
                self._read_class(path, split, label_of[name], digest)
            if self._to_learn and split == "train" and count == len(self._examples):
                raise _empty(f"the class folder {paths[0]}", self._others - others, "add some or remove the folder")
        if not self._examples:
            raise _empty(str(root), self._others, "add some")
        self.fingerprint = digest.hexdigest()
        if self._others:
            log.warning("%s: left out, as they are no pictures that can be read: %s", root, _counted(self._others))
        if self._outside:
            log.warning("%s: left out, as they lie in no class folder: %d pictures", root, self._outside)

    def _split_folders(self, root: Path) -> dict[tuple[str, str], list[str]]:
        """(split, class) → its folders. Without split folders, everything is train."""
        folders = self._subfolders(str(root))
        splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
        needed = [folders[name] for name, split in splits.items() if split == "train"]
        if not needed and not self._to_learn:
            needed = [folders[name] for name in splits]
        # A class may be called `train` too: then it holds images itself, or no other split stands beside it.
        is_split = (
            bool(needed)
            and (len(set(splits.values())) > 1 or len(needed) == len(folders))
            and all(_inner_folders(path) for path in needed)
        )
        if not is_split:
            _check_classes(root, folders, splits)
            return {("train", name): [path] for name, path in folders.items()}
        classes: dict[tuple[str, str], list[str]] = {}
        for folder, path in folders.items():
            if folder not in splits:
                log.warning("%s: %r is beside train and is not read", root, folder)
                self.ignored += 1
                continue
            found = self._subfolders(path)
            if not found:
                log.warning("%s has no class folders and is not read", path)
            for name, inner in found.items():
                classes.setdefault((splits[folder], name), []).append(inner)
        return classes

    def _subfolders(self, path: str) -> dict[str, str]:
        """Name → path of the folders in `path`; everything else there has no class and is ignored."""
        found: dict[str, str] = {}
        for entry in _entries(path):
            if is_junk(entry.name) or not entry.is_dir():
                self.ignored += 1
                self._outside += not is_junk(entry.name) and is_image_file(entry)
                continue
            # A Mac decomposes é into e and an accent, and everybody else does not.
            name = unicodedata.normalize("NFC", _checked(entry.name, path))
            if name in found:
                both = " and ".join(_code_points(os.path.basename(one)) for one in (found[name], entry.path))
                raise InputError(f"--dataset: {path} has two folders that look alike, {both}; put them together")
            found[name] = entry.path
        return found

    def _read_class(self, folder: str, split: str, label: int, digest: hashlib._Hash) -> None:
        """Append the images under `folder`, and what tells whether one has changed to `digest`."""
        start = len(self._root) + 1
        for entry in _entries(folder):
            if is_junk(entry.name):
                self.ignored += 1
            elif entry.is_dir():
                if not (entry.is_symlink() and _is_loop(entry.path)):
                    self._read_class(entry.path, split, label, digest)
            elif is_image_file(entry):
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
                if entry.is_file():
                    self._others[suffix(entry.name)] += 1


def _check_classes(root: Path, folders: dict[str, str], splits: dict[str, str]) -> None:
    """Raise InputError where what look like class folders are divisions of the data."""
    inner = [_inner_folders(path) for path in folders.values()]
    if not inner or not all(inner):
        return
    if len(splits) == len(folders):
        raise InputError(
            f"--dataset: {root} has {' and '.join(folders)} but no train; add train, or name one of the folders "
            f"to divide it anew: folder:{next(iter(folders.values()))}"
        )
    if len(folders) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        raise InputError(
            f"--dataset: each folder in {root} ({_some(tuple(folders))}) holds folders of the same names only "
            f"({_some(tuple(sorted(inner[0])))}): if those are the classes, call the outer ones train, val and test; "
            "else put the pictures into the outer ones"
        )


def _inner_folders(path: str) -> set[str]:
    """The names of the folders in `path` (in composed form) where it holds folders and no images; else empty."""
    names: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            if is_junk(entry.name):
                continue
            if entry.is_dir():
                names.add(unicodedata.normalize("NFC", entry.name))
            elif is_image_file(entry):
                return set()
    return names


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


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


def _code_points(name: str) -> str:
    return "'" + "".join(one if one.isascii() else f"<U+{ord(one):04X}>" for one in name) + "'"


def _empty(where: str, others: Counter[str], remedy: str) -> InputError:
    found = f"; it has {_counted(others)}" if others else ""
    return InputError(f"--dataset: {where} has no images ({', '.join(IMAGE_SUFFIXES)} are read){found}; {remedy}")


def _counted(suffixes: Counter[str]) -> str:
    """3 .tif files, 1 file without a suffix"""
    ordered = sorted(suffixes.items(), key=lambda one: (-one[1], one))
    files = [(count, suffix, "file" if count == 1 else "files") for suffix, count in ordered]
    return ", ".join(
        f"{count} {suffix} {noun}" if suffix else f"{count} {noun} without a suffix" for count, suffix, noun in files
    )


def _split_order(folder: tuple[str, str]) -> tuple[int, str]:
    return SPLITS.index(folder[0]), folder[1]


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
