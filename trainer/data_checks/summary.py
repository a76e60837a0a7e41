"""Findings as text, for the terminal and the page, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.sources.base import SPLITS
from trainer.data.splits import TEST, VAL
from trainer.data_checks.image_quality import KINDS
from trainer.data_checks.images import CheckedImages
from trainer.data_checks.run import Findings
from trainer.text import counted

EXAMPLES = 3


def sentences(findings: Findings) -> list[str]:
    """One to four lines for each kind of issue, with names of images, then what is in order and what is not checked."""
    lines = [
        *_duplicates(findings.images, findings.duplicates),
        *_label_issues(findings),
        *_low_quality(findings),
        *_confusable(findings),
    ]
    if in_order := _in_order(findings):
        lines.append(f"in order: {in_order}")
    count, sample = len(findings.images), len(findings.sample)
    if sample < count:
        lines.append(f"checked in full: {sample:,} of {count:,} images, drawn at random; the others by hashes only")
    return lines


def _in_order(findings: Findings) -> str:
    """The checks that were made and found nothing; empty without any."""
    found = {image.kind for image in findings.low_quality}
    clean = [kind for kind in findings.kinds_checked if kind not in found and kind != "outlier"]
    labels = findings.labels_checked
    results = {
        "no near-duplicates": not findings.duplicates,
        "no label issues": labels and not findings.label_issues and not findings.confusable,
        f"no {', '.join(clean[:-1])}{' or ' if clean[1:] else ''}{''.join(clean[-1:])} images": bool(clean),
        "no outliers": "outlier" in findings.kinds_checked and "outlier" not in found,
        "no confusable classes": labels and not findings.confusable,
    }
    return ", ".join(text for text, is_clean in results.items() if is_clean)


def to_dict(findings: Findings) -> dict[str, Any]:
    """Plain JSON values, images by name; the most likely wrong label first."""
    names, classes = findings.images.names, findings.images.class_names
    labels, splits = findings.images.labels, findings.images.splits

    def image(position: int) -> dict[str, Any]:
        return {"image": names[position], "split": SPLITS[splits[position]], "label": classes[labels[position]]}

    return {
        "images": len(findings.images),
        "examined": len(findings.sample),
        "labels_judged": findings.labels_checked,
        "duplicates": [[image(position) for position in group.tolist()] for group in findings.duplicates],
        "wrong_labels": [
            {**image(issue.position), "suggested": classes[issue.suggested], "probability": issue.probability}
            for issue in findings.label_issues
        ],
        "poor": [{"image": names[found.position], "kind": found.kind} for found in findings.low_quality],
        "alike_classes": [
            {
                "first": classes[pair.first],
                "second": classes[pair.second],
                "right": pair.correct,
                "images": pair.images,
            }
            for pair in findings.confusable
        ],
    }


def _duplicates(images: CheckedImages, groups: list[NDArray[np.int64]]) -> list[str]:
    if not groups:
        return []
    lines = [
        f"duplicates: {counted(sum(map(len, groups)), 'image')} in {counted(len(groups), 'group')} "
        f"show the same, {_such_as(images, groups[0], separator=' and ')}"
    ]
    for split, earlier in ((TEST, "training or validation"), (VAL, "training")):
        same, altered = _count_leaked(images, groups, split)
        name = SPLITS[split]
        if same:
            are = "image is" if same == 1 else "images are"
            lines.append(
                f"  {same:,} {name} {are} also in {earlier}: the figure on {name} is too good; leave the copies out"
            )
        if altered:
            are = "image is" if altered == 1 else "images are"
            lines.append(
                f"  {altered:,} {name} {are} in {earlier} cropped, mirrored or edited: the figure on {name} may be too "
                "good; leave the copies out"
            )
    in_two_classes = [group for group in groups if len(np.unique(images.labels[group])) > 1]
    if in_two_classes:
        lines.append(
            f"  {len(in_two_classes)} {'group is' if len(in_two_classes) == 1 else 'groups are'} in more than one "
            f"class, {_such_as(images, in_two_classes[0], separator=' and ')}: only one label can be right"
        )
    return lines


def _count_leaked(images: CheckedImages, groups: list[NDArray[np.int64]], split: int) -> tuple[int, int]:
    """Images of val or test with a near-duplicate in an earlier split, and with an altered copy there.

    Near-duplicates are what the division of `trainer.data.splits` keeps in one split; altered copies it cannot know.
    """
    same = altered = 0
    for group in groups:
        earlier, own = (group[images.splits[group] < split], group[images.splits[group] == split])
        if len(earlier):
            is_same = np.isin(images.near_duplicates[own], images.near_duplicates[earlier])
            same += int(is_same.sum())
            altered += int((~is_same).sum())
    return same, altered


def _label_issues(findings: Findings) -> list[str]:
    if not findings.labels_checked:
        return ["labels: too few images, or too hard to tell apart, to say which labels may be wrong"]
    issues, images = findings.label_issues, findings.images
    if not issues:
        return []
    examples = [
        f"{images.names[issue.position]} looks like {images.class_names[issue.suggested]}"
        for issue in issues[:EXAMPLES]
    ]
    return [
        f"labels: {counted(len(issues), 'image')} may have a wrong label, the likeliest first: {', '.join(examples)}"
    ]


def _low_quality(findings: Findings) -> list[str]:
    counts = Counter(image.kind for image in findings.low_quality)
    lines = []
    for kind, words in KINDS.items():
        if counts[kind]:
            positions = [image.position for image in findings.low_quality if image.kind == kind]
            lines.append(f"{kind}: {counted(counts[kind], 'image')} {words}, {_such_as(findings.images, positions)}")
    return lines


def _confusable(findings: Findings) -> list[str]:
    names = findings.images.class_names
    return [
        f"classes: {names[pair.first]} and {names[pair.second]} can hardly be told apart ({pair.correct:,} of "
        f"{pair.images:,} images right, guessing gives half): put them together, or sort them anew"
        for pair in findings.confusable[:EXAMPLES]
    ]


def _such_as(images: CheckedImages, positions: Iterable[int], separator: str = ", ") -> str:
    return "such as " + separator.join(images.names[position] for position in [*positions][:EXAMPLES])
