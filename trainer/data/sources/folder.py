"""`folder:PATH`: `PATH/<class>/*` or `PATH/{train,val,test}/<class>/*`, nested folders inside a class included."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainer.data.sources.base import SPLITS, Example
from trainer.data.sources.file_states import FileStates
from trainer.data.sources.folder_layout import FolderLayout, shorten
from trainer.data.sources.image_files import IMAGE_SUFFIXES, suffix, walk
from trainer.data.sources.nesting import warn_nested_classes
from trainer.data.sources.similar_names import warn_similar_names
from trainer.errors import InputError, did_you_mean
from trainer.names import slug

log = logging.getLogger("trainer")


class FolderSource:
    """Images under a folder; class names are folder names (in Unicode's composed form), sorted by code point.

    Hidden files and folders, and junk of network disks and operating systems, are ignored and counted; and so, with a
    warning, are files that are not images by their suffix (by their bytes without one).
    Raises InputError for a folder that cannot be read or has no images, and for what `FolderLayout` refuses; with
    `for_training` also for fewer than two classes, a class without images, a class in val or test that train does not
    have, or val or test without train.
    """

    default_normalize = "none"

    def __init__(self, path: Path, *, for_training: bool = True) -> None:
        root = path.resolve()
        self.spec = f"folder:{root}"
        self.name = slug(root.name)
        self._root = str(root)
        self._other_files: Counter[str] = Counter()  # suffix, or "" → files in class folders that are not images
        try:
            layout = FolderLayout(root, for_training=for_training)
            self.ignored = layout.ignored
            self.class_names = _class_names(root, layout, for_training)
            warn_similar_names(self.spec, self.class_names)
            if for_training:
                warn_nested_classes(root, layout.class_folders)
            self._read(layout, for_training)
        except OSError as error:
            raise InputError(f"--dataset: {error.filename} cannot be read: {error.strerror}") from error
        if self._other_files:
            log.warning("%s: left out, as they are not images that can be read: %s", root, _counted(self._other_files))
        if layout.images_without_class:
            log.warning("%s: left out, as they are in no class folder: %d images", root, layout.images_without_class)

    def __len__(self) -> int:
        return len(self._examples)

    def examples(self) -> Iterator[Example]:
        """Examples by split, class and path, each sorted by code point."""
        return iter(self._examples)

    def _read(self, layout: FolderLayout, for_training: bool) -> None:
        self._examples: list[Example] = []
        files = FileStates(os.fsencode(self._root))
        label_of = {name: label for label, name in enumerate(self.class_names)}
        for (split, name), paths in sorted(layout.class_folders.items(), key=_by_split):
            count, other_files = len(self._examples), self._other_files.copy()
            for path in paths:
                self._read_class(path, split, label_of[name], files)
            if for_training and split == "train" and count == len(self._examples):
                files_of_class = self._other_files - other_files
                raise _no_images(f"the class folder {paths[0]}", files_of_class, "add some or remove the folder")
        if not self._examples:
            raise _no_images(self._root, self._other_files, "add some")
        self.fingerprint, self.state = files.fingerprint, files.state

    def _read_class(self, folder: str, split: str, label: int, files: FileStates) -> None:
        """Append the images under `folder`, and add their files to `files`."""
        start = len(self._root) + 1
        for kind, entry in walk(folder):
            if kind == "image":
                try:
                    status = entry.stat()
                except OSError:  # a broken link: the decoder will report it
                    status = None
                name = entry.path[start:]
                files.add(name, status)
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")  # not every name is UTF-8
                self._examples.append(Example(split, label, shown, entry.path, status.st_size if status else 0))
            else:
                self.ignored += 1
                if kind == "other" and entry.is_file():
                    self._other_files[suffix(entry.name)] += 1


def _class_names(root: Path, layout: FolderLayout, for_training: bool) -> tuple[str, ...]:
    known = {name for split, name in layout.class_folders if split == "train" or not for_training}
    class_names = tuple(sorted(known))
    for split, name in layout.class_folders:
        if name not in known:
            raise InputError(
                f"--dataset: {root} has the class {name!r} in {split} but not in train; train has "
                f"{shorten(class_names)}"
            )
    suggestion = did_you_mean(f"folder:{path}" for path in layout.suggest_roots(root))
    if len(class_names) < (2 if for_training else 1):
        found = f"only one class folder, {class_names[0]!r}," if class_names else "no class folders"
        raise InputError(
            f"--dataset: {root} has {found} where at least {'two are' if for_training else 'one is'} expected "
            f"(PATH/<class>/<image>){suggestion}"
        )
    if suggestion:
        log.warning("%s has only one class folder, %r%s", root, class_names[0], suggestion)
    return class_names


def _no_images(folder: str, other_files: Counter[str], remedy: str) -> InputError:
    found = f"; it has {_counted(other_files)}" if other_files else ""
    return InputError(f"--dataset: {folder} has no images ({', '.join(IMAGE_SUFFIXES)} are read){found}; {remedy}")


def _counted(suffixes: Counter[str]) -> str:
    """Files by suffix in words, such as "3 .tif files, 1 file without a suffix"."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item))
    files = [(count, suffix, "file" if count == 1 else "files") for suffix, count in ordered]
    return ", ".join(
        f"{count} {suffix} {noun}" if suffix else f"{count} {noun} without a suffix" for count, suffix, noun in files
    )


def _by_split(item: tuple[tuple[str, str], list[str]]) -> tuple[int, str]:
    (split, name), _ = item
    return SPLITS.index(split), name
