"""Page of a comparison: figures of both models, the classes that change, and the images that one alone gets right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import Split
from trainer.files import write_text
from trainer.images.encode import data_uri, encode_png
from trainer.reporting.comparison import Comparison
from trainer.reporting.predictions import PredictionMetrics, Predictions
from trainer.reporting.templates import render

PAGE = "comparison.html"
TEMPLATE = Path(__file__).with_name("comparison.html.jinja")
MAX_SHOWN = 40  # images that one model alone gets right, for each model


@dataclass(frozen=True)
class Side:
    """One of the two models with its metrics on the images that are compared."""

    model: str  # tag
    metrics: PredictionMetrics
    batch_ms: Mapping[str, float] | None  # batch size → milliseconds; None: its file is not on this machine

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"model": self.model, **asdict(self.metrics), "batch_ms": self.batch_ms}


@dataclass(frozen=True)
class PageFacts:
    """Facts that the page shows beside the comparison."""

    dataset: str  # a spec
    command: str  # that wrote the page
    relation: str  # of the images to the models: a clause
    val_images: int  # of the images, validation images of one of the models
    a: Side
    b: Side


def write_page(
    folder: Path,
    facts: PageFacts,
    compared: Comparison,
    images: Split,
    a_predicted: Predictions,
    b_predicted: Predictions,
) -> Path:
    """Write PAGE into `folder` → its path. It is self-contained; `images` are those of the comparison, in its order."""

    def cards(positions: NDArray[np.int64], wrong: Predictions) -> list[dict[str, Any]]:
        order = np.argsort(-wrong.probabilities[positions], kind="stable")[:MAX_SHOWN]  # the most confident mistakes
        return [card(int(position)) for position in positions[order]]

    def card(position: int) -> dict[str, Any]:
        return {
            "name": images.name(position),
            "image": data_uri(encode_png(images.read(np.array([position]))[0])),
            "truth": compared.truth[position],
            "answers": [
                (str(predicted.class_names[position]), float(predicted.probabilities[position]))
                for predicted in (a_predicted, b_predicted)
            ],
        }

    classes = compared.classes()
    page = render(
        TEMPLATE,
        facts=facts,
        compared=compared,
        changed=[change for change in classes if change.a_correct != change.b_correct],
        unchanged=sum(change.a_correct == change.b_correct for change in classes),
        galleries=[
            (facts.a.model, facts.b.model, len(compared.only_a), cards(compared.only_a, b_predicted)),
            (facts.b.model, facts.a.model, len(compared.only_b), cards(compared.only_b, a_predicted)),
        ],
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PAGE
    write_text(file, page)
    return file
