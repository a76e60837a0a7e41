"""Warning about class folders that hold folders in place of images: the classes may lie one level deeper."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.data.sources.base import SPLIT_NAMES
from trainer.data.sources.folder_layout import inner_folders, shorten

log = logging.getLogger("trainer")


def warn_nested_classes(root: Path, class_folders: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Warn of data sets that are read as classes, and of training classes that hold only folders.

    `class_folders`: (split, class) → its folders.
    """
    paths = {name: folders[0] for (split, name), folders in class_folders.items() if split == "train"}
    inner = {name: inner_folders(path) for name, path in paths.items()}
    data_sets = [name for name, found in inner.items() if found and {name.lower() for name in found} <= {*SPLIT_NAMES}]
    if data_sets:
        log.warning(
            "%s: %s hold splits, as data sets do, and are read as classes; to train on one of them: folder:%s",
            *(root, shorten(tuple(data_sets)), paths[data_sets[0]]),
        )
        return
    below = tuple(sorted(set().union(*inner.values())))
    if all(inner.values()) and len(below) > len(paths):
        deepest = max(inner, key=lambda name: len(inner[name]))
        log.warning(
            "%s: %d folders (%s) lie below the %d classes %s, and are read as parts of these; if they are the classes, "
            "name one of the upper folders, such as folder:%s, or list the images of all in a table (csv:FILE with the "
            "columns image, label and split)",
            *(root, len(below), shorten(below), len(paths), shorten(tuple(paths)), os.path.normpath(paths[deepest])),
        )
