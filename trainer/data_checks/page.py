"""Findings as one HTML page with images, on which a person decides about each; it works without network.

The browser saves the decisions as a JSON file, from which `fix` writes a table.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.sources.base import SPLITS, Source
from trainer.data_checks.fix import fit_command, source_folder
from trainer.data_checks.image_quality import KINDS
from trainer.data_checks.run import Findings
from trainer.data_checks.summary import sentences
from trainer.files import write_text
from trainer.images.encode import data_uri
from trainer.reporting.templates import render
from trainer.text import shell_command

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SCRIPT = Path(__file__).with_name("page.js")
TABLE = "fixed.csv"
MAX_SHOWN = 200  # images of each kind; the next ones show after these are decided
SIDE = 160  # pixels, of an image on the page
QUALITY = 85
LEAVE_OUT = "-"
KEEP = ""


@dataclass(frozen=True)
class Card:
    """One image on the page."""

    name: str
    image: str  # a data URI
    split: str
    label: str
    suggested: str  # the predicted class where the label may be wrong, else empty
    choice: str  # preselected: KEEP or LEAVE_OUT
    note: str


@dataclass(frozen=True)
class Section:
    """One kind of issue."""

    title: str
    text: str
    groups: list[list[Card]]  # images that belong together
    more: int  # images that are not shown


def suggested_removals(findings: Findings) -> set[int]:
    """Positions of images to leave out: blank ones, and all but one of each group of duplicates.

    The one that stays is in test, or else in val: metrics stay comparable, and nothing measured is trained on. A group
    with different labels is left to a person.
    """
    images = findings.images
    removals = {image.position for image in findings.low_quality if image.kind == "blank"}
    for group in findings.duplicates:
        if len(np.unique(images.labels[group])) == 1:
            kept = group[np.argmax(images.splits[group])]
            removals.update(int(position) for position in group if position != kept)
    return removals


def write_page(findings: Findings, file: Path, *, name: str, spec: str, data_dir: Path | None, source: Source) -> None:
    """Write the page for `source`, which `spec` and `data_dir` name. Raises OSError."""
    inspect = ["trainer", "data", "inspect", spec, *([f"--data-dir={data_dir}"] if data_dir else [])]
    root = source_folder(source.spec)
    table = root and root / TABLE
    script = SCRIPT.read_text(encoding="utf-8")
    page = render(
        TEMPLATE,
        name=name,
        spec=spec,
        sentences=sentences(findings),
        sections=_sections(findings),
        classes=findings.images.class_names,
        images=len(findings.images),
        fix=table and shell_command([*inspect, "--fix", str(table), "--choices", "choices.json"]),
        fit=table and shell_command(fit_command(table, name)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    write_text(file, page)


def _sections(findings: Findings) -> list[Section]:
    removals = suggested_removals(findings)
    suggested = {issue.position: findings.images.class_names[issue.suggested] for issue in findings.label_issues}

    def card(position: int, note: str) -> Card:
        images = findings.images
        return Card(
            name=images.names[position],
            image=_thumbnail(findings, position),
            split=SPLITS[images.splits[position]],
            label=images.class_names[images.labels[position]],
            suggested=suggested.get(position, ""),
            choice=LEAVE_OUT if position in removals else KEEP,
            note=note or (f"looks like {suggested[position]}" if position in suggested else ""),
        )

    def section(title: str, text: str, groups: Sequence[Sequence[int]], note: str = "") -> Section:
        shown: list[list[Card]] = []
        count = 0
        for group in groups:
            if count < MAX_SHOWN:
                shown.append([card(position, note) for position in group])
                count += len(group)
        return Section(title, text, shown, more=sum(map(len, groups)) - count)

    sections = [
        section(
            "Duplicates",
            "The images of a row show the same. An image that is in training and in test makes the figure on test too "
            "good. One image of each row stays; where the labels differ, you decide which is right.",
            [group.tolist() for group in findings.duplicates],
        ),
        section(
            "Labels that may be wrong",
            "A network that learned from all other images takes each for another class; the likeliest first. Nothing "
            "is changed unless you say so: the network may be wrong, too.",
            [[issue.position] for issue in findings.label_issues],
        ),
    ]
    for kind, words in KINDS.items():
        found = [[image.position] for image in findings.low_quality if image.kind == kind]
        sections.append(section(kind.capitalize(), f"These are {words}.", found, kind))
    return [section for section in sections if section.groups]


def _thumbnail(findings: Findings, position: int) -> str:
    pixels = findings.images.combined.read(np.array([position]))[0]
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return data_uri(file.getvalue(), "image/jpeg")
