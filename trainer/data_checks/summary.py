"""Findings in words: for the terminal, the log and the page."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.sources.base import SPLITS
from trainer.data.splits import TEST, VAL
from trainer.data_checks.image_quality import KINDS
from trainer.data_checks.images import Pictures
from trainer.data_checks.run import Findings

EXAMPLES = 3


def sentences(findings: Findings) -> list[str]:
    """A line or two for each kind of finding, examples by path; one line where there is none."""
    lines = [
        *_duplicates(findings.pictures, findings.duplicates),
        *_wrong_labels(findings),
        *_poor(findings),
        *_alike(findings),
    ]
    count, examined = len(findings.pictures), len(findings.examined)
    if examined < count:
        lines.append(
            f"looked at in full: {examined:,} of {count:,} images, drawn at random; the others by hashes alone"
        )
    return lines or ["nothing found: no duplicates, no labels that look wrong, no blank, dark, blurred or odd images"]


def to_dict(findings: Findings) -> dict[str, Any]:
    """Plain JSON values; images by name, the least likely label first."""
    names, classes = findings.pictures.names, findings.pictures.class_names
    labels, splits = findings.pictures.labels, findings.pictures.splits
    return {
        "images": len(findings.pictures),
        "examined": len(findings.examined),
        "labels_judged": findings.judged,
        "duplicates": [
            [{"image": names[one], "split": SPLITS[splits[one]], "label": classes[labels[one]]} for one in group]
            for group in findings.duplicates
        ],
        "wrong_labels": [
            {
                "image": names[one.position],
                "split": SPLITS[splits[one.position]],
                "label": classes[labels[one.position]],
                "suggested": classes[one.suggested],
                "probability": one.probability,
            }
            for one in findings.wrong_labels
        ],
        "poor": [{"image": names[one.position], "kind": one.kind} for one in findings.poor],
        "alike_classes": [
            {"first": classes[one.first], "second": classes[one.second], "right": one.right, "images": one.images}
            for one in findings.alike
        ],
    }


def shared_with(pictures: Pictures, duplicates: list[NDArray[np.int64]], split: int) -> int:
    """How many pictures of val or test are there in a split before it, too."""
    return sum(
        int((pictures.splits[group] == split).sum()) for group in duplicates if pictures.splits[group].min() < split
    )


def _duplicates(pictures: Pictures, groups: list[NDArray[np.int64]]) -> list[str]:
    if not groups:
        return []
    lines = [
        f"duplicates: {_images(sum(map(len, groups)))} in {len(groups)} {'group' if len(groups) == 1 else 'groups'} "
        f"show the same, {_examples(pictures, groups[0][:EXAMPLES], joint=' and ')}"
    ]
    for split, earlier in ((TEST, "training or validation"), (VAL, "training")):
        if count := shared_with(pictures, duplicates=groups, split=split):
            verb = "is" if count == 1 else "are"
            lines.append(
                f"  {count:,} {SPLITS[split]} {'image' if count == 1 else 'images'} {verb} also in {earlier}: the "
                f"figure on {SPLITS[split]} flatters; leave the copies out, and it is honest"
            )
    torn = [group for group in groups if len(np.unique(pictures.labels[group])) > 1]
    if torn:
        lines.append(
            f"  {len(torn)} {'group is' if len(torn) == 1 else 'groups are'} in more than one class, "
            f"{_examples(pictures, torn[0][:EXAMPLES], joint=' and ')}: only one label can be right"
        )
    return lines


def _wrong_labels(findings: Findings) -> list[str]:
    if not findings.judged:
        return ["labels: too few images, or too hard to tell apart, to say which labels may be wrong"]
    found, pictures = findings.wrong_labels, findings.pictures
    if not found:
        return []
    examples = [
        f"{pictures.names[one.position]} looks like {pictures.class_names[one.suggested]}" for one in found[:EXAMPLES]
    ]
    return [f"labels: {_images(len(found))} may have a wrong label, the likeliest first: {', '.join(examples)}"]


def _poor(findings: Findings) -> list[str]:
    counts = Counter(one.kind for one in findings.poor)
    lines = []
    for kind, what in KINDS.items():
        if counts[kind]:
            some = [one.position for one in findings.poor if one.kind == kind][:EXAMPLES]
            lines.append(f"{kind}: {_images(counts[kind])} {what}, {_examples(findings.pictures, some)}")
    return lines


def _alike(findings: Findings) -> list[str]:
    names = findings.pictures.class_names
    return [
        f"classes: {names[one.first]} and {names[one.second]} can hardly be told apart ({one.right:,} of "
        f"{one.images:,} images right, guessing gives half): put them together, or sort them anew"
        for one in findings.alike[:EXAMPLES]
    ]


def _examples(pictures: Pictures, positions: Any, joint: str = ", ") -> str:
    return "such as " + joint.join(pictures.names[int(one)] for one in positions)


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"
