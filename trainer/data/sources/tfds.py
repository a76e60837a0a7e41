"""`tfds:NAME[/CONFIG][:VERSION]`: a prepared TFDS dataset with an image and a class label. Never downloads."""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainer.data.sources.base import SPLIT_NAMES, SPLITS, Example
from trainer.data.sources.file_states import FileStates
from trainer.errors import InputError, TrainerError, did_you_mean
from trainer.machine import start_tensorflow

log = logging.getLogger("trainer")

BATCH_SIZE = 256  # examples read at once; a call into TensorFlow for each would cost more than the reading


class TfdsSource:
    """A dataset that TFDS has prepared in `data_dir`, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    TFDS does not decode the images. Class names keep the order of its ClassLabel. Raises InputError where the name is
    unknown, the dataset is not prepared, or it lacks an image, a class label or a split (`for_training`: train).
    """

    ignored = 0

    def __init__(self, name: str, data_dir: Path | None = None, *, for_training: bool = True) -> None:
        match = re.fullmatch(r"(\w+)(/[^:/]+)?(:\d+\.\d+\.\d+)?", name)
        if not match:
            raise InputError(
                f"--dataset: 'tfds:{name}' is not of the form tfds:NAME[/CONFIG][:VERSION], "
                "for example tfds:mnist:3.0.1"
            )
        if "tensorflow" not in sys.modules:
            log.info("starting TensorFlow to read the data set")
            start_tensorflow()
        root = data_root(data_dir)
        with _damage_is_input_error(f"tfds:{name}", root):
            self._open(name, match[1], root)
        if len(self.class_names) < 2:
            raise InputError(f"--dataset: {self.spec} has {len(self.class_names)} classes; at least 2 are expected")
        splits = list(self._builder.info.splits)
        if not self._splits or (for_training and SPLIT_NAMES[self._splits[0].lower()] != "train"):
            raise InputError(f"--dataset: {self.spec} has no train split, only {', '.join(splits) or 'no split'}")
        if unread := [name for name in splits if name not in self._splits]:
            log.warning("%s: not read, as they are not train, val or test: %s", self.spec, ", ".join(unread))
        files = FileStates(self.spec.encode())
        for file in sorted(Path(self._builder.data_dir).iterdir()):
            files.add(file.name, file.stat())
        self.fingerprint, self.state = files.fingerprint, files.state

    def _open(self, reference: str, name: str, root: Path) -> None:
        """Read the description of the data set; raises whatever TFDS raises where its files are damaged."""
        self._builder = _open_builder(reference, name, root)
        info = self._builder.info
        self.spec = "tfds:" + ":".join(info.full_name.rsplit("/", 1))  # mnist/3.0.1 → mnist:3.0.1
        self.name = info.full_name.rsplit("/", 1)[0].replace("/", "-")
        self.default_normalize = "mnist" if info.name == "mnist" else "none"
        self._image, self._label = _find_features(self.spec, info)
        label = info.features[self._label]
        self.class_names = tuple(label.int2str(index) for index in range(label.num_classes or 0))
        self._splits = [name for split in SPLITS for name in info.splits if SPLIT_NAMES.get(name.lower()) == split]

    def __len__(self) -> int:
        return sum(self._builder.info.splits[name].num_examples for name in self._splits)

    def examples(self) -> Iterator[Example]:
        """Examples in the order of the record files. Some test splits have no labels: -1 throughout."""
        import tensorflow as tf

        for name in self._splits:
            position = 0
            try:
                for images, labels in self._batches(name):
                    for data, label in zip(images.tolist(), labels.tolist(), strict=True):
                        yield Example(SPLIT_NAMES[name.lower()], label, f"{name}[{position}]", data, len(data))
                        position += 1
            except (MemoryError, tf.errors.ResourceExhaustedError):
                raise
            except Exception as error:  # of TensorFlow, TFDS, or Python: file names are patterns in the description
                raise InputError(
                    f"--dataset: {self.spec} cannot be read after example {position} of {name}; its files in "
                    f"{self._builder.data_dir} are damaged or missing: prepare it again"
                ) from error

    def _batches(self, split: str) -> Iterator[tuple[Any, Any]]:
        """Encoded images, object [n] of bytes, and labels, int64 [n]."""
        import tensorflow_datasets as tfds

        features = {self._image: True, self._label: True}
        keep_encoded = {self._image: tfds.decode.SkipDecoding()}
        with _quiet_absl():
            dataset = self._builder.as_dataset(
                split=split,
                decoders=tfds.decode.PartialDecoding(features, decoders=keep_encoded),
                read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            )
        for batch in dataset.batch(BATCH_SIZE).as_numpy_iterator():
            yield batch[self._image], batch[self._label]


def data_root(data_dir: Path | None) -> Path:
    """Folder of prepared data sets: `data_dir`, else `$TFDS_DATA_DIR` or `~/tensorflow_datasets`."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared(root: Path) -> set[str]:
    """NAME/VERSION and NAME/CONFIG/VERSION of the data sets in `root`."""
    return {
        str(file.parent.relative_to(root)) for depth in ("*/*", "*/*/*") for file in root.glob(f"{depth}/features.json")
    }


@contextmanager
def _damage_is_input_error(spec: str, root: Path) -> Iterator[None]:
    """Whatever TFDS raises for damaged files of a prepared data set, as an InputError."""
    try:
        yield
    except (TrainerError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"--dataset: {spec} in {root} cannot be opened: prepare it again, or install what it needs ({reason})"
        ) from error


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Hide TFDS's warnings about its own calls of functions that it has deprecated."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)


def _open_builder(reference: str, name: str, root: Path) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    for folder in (root, *_parents_of(name, root)):
        with suppress(tfds.core.DatasetNotFoundError):
            return read_only_builder.builder_from_files(reference, data_dir=str(folder))
    present = prepared(root)
    versions = sorted(path for path in present if path.split("/")[0] == name)
    known = {path.split("/")[0] for path in present} | set(tfds.list_builders(with_community_datasets=False))
    if name not in known:
        similar = difflib.get_close_matches(name.lower(), sorted(known), n=3)
        suggestion = did_you_mean(f"tfds:{known_name}" for known_name in similar)
        raise InputError(f"--dataset: TFDS has no dataset {name!r}{suggestion}")
    others = f" (prepared there: {', '.join(versions)})" if versions else ""
    raise InputError(
        f"--dataset: tfds:{reference} is not prepared in {root}{others}, and nothing is downloaded by itself: "
        "point --data-dir or TFDS_DATA_DIR at a folder that holds it, or prepare it where there is network: "
        f"""python -c "import tensorflow_datasets as tfds; """
        f"""tfds.builder('{reference}', data_dir='{root}').download_and_prepare()\""""
    )


def _parents_of(name: str, root: Path) -> list[Path]:
    """Folder that holds the data set's folder NAME, where `root` is that folder or lies within (NAME/VERSION)."""
    path = root.absolute()
    return [folder.parent for folder in (path, *path.parents[:2]) if folder.name == name]


def _find_features(spec: str, info: Any) -> tuple[str, str]:
    """Keys of the image and of its class label."""
    import tensorflow_datasets as tfds

    found = []
    for kind, default in ((tfds.features.Image, "image"), (tfds.features.ClassLabel, "label")):
        keys = [key for key, feature in info.features.items() if isinstance(feature, kind)]
        preferred = [key for key in (default, *(info.supervised_keys or ())) if key in keys]
        if not preferred and len(keys) != 1:
            problem = f"several: {', '.join(keys)}" if keys else f"none among {', '.join(info.features)}"
            raise InputError(
                f"--dataset: {spec} is expected to have one {default} ({kind.__name__} feature) but has {problem}"
            )
        found.append((preferred or keys)[0])
    image, label = found
    dtype = info.features[image].np_dtype
    if dtype not in ("uint8", "uint16"):
        raise InputError(f"--dataset: {spec} has images of {dtype}; uint8 or uint16 is expected")
    return image, label
