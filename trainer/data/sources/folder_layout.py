"""Layout of an image folder: `PATH/<class>` or `PATH/{train,val,test}/<class>`."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from pathlib import Path

from trainer.data.sources.base import SPLIT_NAMES
from trainer.data.sources.image_files import is_image_file, is_junk, sorted_entries
from trainer.errors import InputError

log = logging.getLogger("trainer")

MAX_LISTED = 10  # class names in a message
MAX_WRAPPERS = 5  # folders around the class folders that a suggestion passes
# Names such as `test1`, `train_images` and `val2017`, besides those in SPLIT_NAMES.
_FILLER = r"(?:images?|imgs?|photos?|pictures?|data|dataset|set|split)?"
SPLIT_LIKE = re.compile(rf"{_FILLER}[\W_]*({'|'.join(SPLIT_NAMES)})[\W_]*{_FILLER}[\W_]*\d*")


class FolderLayout:
    """Class folders of the splits under `root`. Without split folders, every class is in train.

    Raises InputError for two class folders whose names look alike, a name that is not UTF-8, or class folders that look
    like splits but are not called train, val or test; OSError for a folder that cannot be read.
    """

    def __init__(self, root: Path, *, for_training: bool) -> None:
        self.ignored = 0  # entries outside of class folders
        self.images_without_class = 0  # how many of those are images
        self.class_folders = self._read(root, for_training)  # (split, class) → its folders

    def suggest_roots(self, root: Path) -> list[str]:
        """Folders that the user may have meant, where `root` is a folder too high or too deep; mostly none."""
        if not self.class_folders:
            siblings = self.images_without_class and inner_folders(str(root.parent))
            return [str(root.parent)] if siblings and len(siblings) > 1 else []
        [folder, *others] = [path for paths in self.class_folders.values() for path in paths]
        if others:
            return []
        for _ in range(MAX_WRAPPERS):
            inner = inner_folders(folder)
            if len(inner) != 1:
                return [folder] if inner else []
            folder = os.path.join(folder, *inner)
        return []

    def _read(self, root: Path, for_training: bool) -> dict[tuple[str, str], list[str]]:
        folders = self._subfolders(str(root))
        splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
        if not _has_split_folders(folders, splits, for_training):
            _check_class_folders(root, folders, splits)
            return {("train", name): [path] for name, path in folders.items()}
        classes: dict[tuple[str, str], list[str]] = {}
        for folder, path in folders.items():
            if folder not in splits:
                _check_unread(root, folder, path)
                self.ignored += 1
                continue
            inner = self._subfolders(path)
            if not inner:
                log.warning("%s has no class folders and is not read", path)
            for name, class_folder in inner.items():
                classes.setdefault((splits[folder], name), []).append(class_folder)
        return classes

    def _subfolders(self, path: str) -> dict[str, str]:
        """Name → path of the folders in `path`; all other entries are ignored and counted."""
        found: dict[str, str] = {}
        for entry in sorted_entries(path):
            if is_junk(entry.name) or not entry.is_dir():
                self.ignored += 1
                self.images_without_class += not is_junk(entry.name) and is_image_file(entry)
                continue
            # macOS decomposes é into e and an accent; other systems do not.
            name = unicodedata.normalize("NFC", _checked(entry.name, path))
            if name in found:
                both = " and ".join(_code_points(os.path.basename(folder)) for folder in (found[name], entry.path))
                raise InputError(f"--dataset: {path} has two folders that look alike, {both}; put them together")
            found[name] = entry.path
        return found


def shorten(class_names: tuple[str, ...]) -> str:
    """The first MAX_LISTED names, and how many are left out."""
    left_out = len(class_names) - MAX_LISTED
    return ", ".join(class_names[:MAX_LISTED]) + (f" and {left_out} more" if left_out > 0 else "")


def _has_split_folders(folders: dict[str, str], splits: dict[str, str], for_training: bool) -> bool:
    required = [folders[name] for name, split in splits.items() if split == "train"]
    if not required and not for_training:
        required = [folders[name] for name in splits]
    # `train` can be a class: then it holds images itself, or there is no other split beside it.
    return (
        bool(required)
        and (len(set(_split_like(folders).values())) > 1 or len(required) == len(folders))
        and all(inner_folders(path) for path in required)
    )


def _check_class_folders(root: Path, folders: dict[str, str], splits: dict[str, str]) -> None:
    """Raise InputError if the class folders look like splits."""
    inner = [inner_folders(path) for path in folders.values()]
    all_nested = bool(inner) and all(inner)
    like = _split_like(folders)
    if len(set(like.values())) > 1 and not all_nested and ("train" in like.values() or len(like) == len(folders)):
        raise InputError(
            f"--dataset: {root} has {' and '.join(like)}, which are splits by their names, but their images are in no "
            "class folders: sort them as train/<class>/<image>, or write a table of them (csv:FILE with the columns "
            "image, label and split)"
        )
    for name in splits:
        if inner_folders(folders[name]) and len(folders) > 1 and not all_nested:
            log.warning("%s: %r is read as a class, as no other split is beside it", root, name)
    if not all_nested:
        return
    if len(splits) == len(folders):
        raise InputError(
            f"--dataset: {root} has {' and '.join(folders)} but no train; add train, or name one of the folders "
            f"to divide it anew: folder:{next(iter(folders.values()))}"
        )
    if len(folders) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        if {name.lower() for name in inner[0]} <= SPLIT_NAMES.keys():
            raise InputError(
                f"--dataset: {root} holds data sets, each with splits of its own ({shorten(tuple(folders))}): name "
                f"one, such as folder:{next(iter(folders.values()))}"
            )
        raise InputError(
            f"--dataset: each folder in {root} ({shorten(tuple(folders))}) holds folders of the same names only "
            f"({shorten(tuple(sorted(inner[0])))}): if those are the classes, call the outer ones train, val and test; "
            "else put the images into the outer ones"
        )


def _check_unread(root: Path, folder: str, path: str) -> None:
    """Warn about a folder beside the splits, or raise InputError if it looks like one of them."""
    split = _split_like({folder: path}).get(folder)
    if split and inner_folders(path):
        raise InputError(
            f"--dataset: {root} has {folder!r}, which looks like a split: put its images into {split}, or move it away"
        )
    log.warning("%s: %r is beside train and is not read", root, folder)


def _split_like(folders: dict[str, str]) -> dict[str, str]:
    """Folders that are splits by their names → train, val or test."""
    matches = {name: SPLIT_LIKE.fullmatch(name.lower()) for name in folders}
    return {name: SPLIT_NAMES[match[1]] for name, match in matches.items() if match}


def inner_folders(path: str) -> set[str]:
    """Names of the folders in `path` (in composed form) if it holds folders and no images; else empty."""
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


def _checked(name: str, path: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--dataset: {path} has a class folder whose name is not UTF-8: {name!r}") from error
    return name


def _code_points(name: str) -> str:
    return "'" + "".join(char if char.isascii() else f"<U+{ord(char):04X}>" for char in name) + "'"
