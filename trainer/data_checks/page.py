"""The findings as one page with pictures, on which a person chooses what to do with each; it needs no network.

What is chosen is saved by the browser as a JSON file, from which `fix` makes a table.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.sources.base import SPLITS, Source
from trainer.data_checks.fix import folder_of
from trainer.data_checks.image_quality import KINDS
from trainer.data_checks.run import Findings
from trainer.data_checks.summary import sentences
from trainer.reporting.templates import render

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SCRIPT = Path(__file__).with_name("page.js")
TABLE = "fixed.csv"
SHOWN = 200  # pictures of a kind; once those are dealt with, the next ones show
SIDE = 160  # pixels, of a picture on the page
QUALITY = 85
LEAVE_OUT = "-"
KEEP = ""


@dataclass(frozen=True)
class Card:
    """One picture as it is shown."""

    name: str
    image: str  # a data URI
    split: str
    label: str
    suggested: str  # the class that it looks like; empty: none other
    choice: str  # what is chosen before a person has looked: KEEP or LEAVE_OUT
    note: str


@dataclass(frozen=True)
class Section:
    """One kind of finding."""

    title: str
    text: str
    groups: list[list[Card]]  # of pictures that belong together
    more: int  # pictures that are not shown


def proposals(findings: Findings) -> set[int]:
    """The positions that are suggested to be left out: copies but for one of each group, and blank pictures.

    Of copies one in test stays, or else one in val: what is measured is the same as before, and nothing of it is
    learned. Where copies bear different labels, a person has to say which is right.
    """
    pictures = findings.pictures
    out = {one.position for one in findings.poor if one.kind == "blank"}
    for group in findings.duplicates:
        if len(np.unique(pictures.labels[group])) == 1:
            stays = group[np.argmax(pictures.splits[group])]
            out.update(int(one) for one in group if one != stays)
    return out


def write_page(findings: Findings, file: Path, *, name: str, spec: str, data_dir: Path | None, source: Source) -> None:
    """Write the page of what was found in `source`, which `spec` and `data_dir` name. Raises OSError."""
    inspect = ["trainer", "data", "inspect", spec, *([f"--data-dir={data_dir}"] if data_dir else [])]
    root = folder_of(source.spec)
    table = root and root / TABLE
    script = SCRIPT.read_text(encoding="utf-8")
    page = render(
        TEMPLATE,
        name=name,
        spec=spec,
        sentences=sentences(findings),
        sections=_sections(findings),
        classes=findings.pictures.class_names,
        images=len(findings.pictures),
        fix=table and shlex.join([*inspect, "--fix", str(table), "--choices", "choices.json"]),
        fit=table and shlex.join(["trainer", "fit", f"csv:{table}"]),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    file.write_text(page, encoding="utf-8")


def _sections(findings: Findings) -> list[Section]:
    out = proposals(findings)
    suggested = {one.position: one for one in findings.wrong_labels}
    names = findings.pictures.class_names

    def card(position: int, note: str = "") -> Card:
        pictures = findings.pictures
        looks_like = suggested.get(position)
        return Card(
            name=pictures.names[position],
            image=_picture(findings, position),
            split=SPLITS[pictures.splits[position]],
            label=names[pictures.labels[position]],
            suggested=names[looks_like.suggested] if looks_like else "",
            choice=LEAVE_OUT if position in out else KEEP,
            note=note or (f"looks like {names[looks_like.suggested]}" if looks_like else ""),
        )

    def section(title: str, text: str, groups: list[list[int]], note: str = "") -> Section:
        shown: list[list[int]] = []
        for group in groups:
            if sum(map(len, shown)) < SHOWN:
                shown.append(group)
        more = sum(map(len, groups)) - sum(map(len, shown))
        return Section(title, text, [[card(one, note) for one in group] for group in shown], more)

    sections = [
        section(
            "Duplicates",
            "The pictures of a row show the same. A picture that is in training and in test makes the figure on test "
            "too good. One of each row stays; where they bear different labels, you say which is right.",
            [group.tolist() for group in findings.duplicates],
        ),
        section(
            "Labels that may be wrong",
            "Each looks like another class to a network that learned from all other pictures; the likeliest first. "
            "Nothing is changed unless you say so: the network may be wrong, too.",
            [[one.position] for one in findings.wrong_labels],
        ),
    ]
    for kind, what in KINDS.items():
        some = [[one.position] for one in findings.poor if one.kind == kind]
        sections.append(section(kind.capitalize(), f"These are {what}.", some, kind))
    return [one for one in sections if one.groups]


def _picture(findings: Findings, position: int) -> str:
    pixels = findings.pictures.all.read(np.array([position]))[0]
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
