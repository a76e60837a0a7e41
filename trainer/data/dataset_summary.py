"""Facts of a dataset, as `trainer data inspect` shows them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trainer.data.cache.writer import Rejected, is_too_many
from trainer.data.dataset import Dataset
from trainer.images.pixels import PixelSpec


@dataclass(frozen=True)
class DatasetSummary:
    """Facts of a dataset."""

    spec: str
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]  # train | val | test → images per class, in the order of `class_names`
    pixels: PixelSpec  # of the decoded images
    sizes: tuple[tuple[int, int, int, int], ...]  # native (height, width, channels, images), most frequent first
    rejected: tuple[Rejected, ...]
    ignored: int  # files that are not images, and images without a class

    @property
    def too_many_rejected(self) -> bool:
        """Whether the rejected files are more than a fit skips."""
        images = sum(map(sum, self.counts.values()))
        return is_too_many(len(self.rejected), images + len(self.rejected))

    @property
    def imbalance(self) -> float:
        """Training images of the largest class for each image of the smallest; infinite if that has none."""
        counts = self.counts["train"]
        return max(counts) / min(counts) if min(counts) else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the class names have the key `labels`."""
        facts = asdict(self)
        return {"spec": facts.pop("spec"), "labels": facts.pop("class_names"), **facts}


def summarize(dataset: Dataset) -> DatasetSummary:
    """Facts of `dataset`; no image is read."""
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    sizes = dataset.train.cache.sizes
    return DatasetSummary(
        spec=dataset.spec,
        class_names=dataset.class_names,
        counts={name: tuple(split.counts.tolist()) for name, split in splits.items()},
        pixels=dataset.pixels,
        sizes=tuple(sorted(((*size, count) for size, count in sizes.items()), key=lambda entry: -entry[3])),
        rejected=dataset.rejected,
        ignored=dataset.ignored,
    )
