"""Figures of the report, drawn with matplotlib in colours that colour-blind readers can distinguish (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.images.encode import encode_png
from trainer.reporting.fonts import drawable_names
from trainer.reporting.metrics import CALIBRATION_BINS, Evaluation, Mistake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trainer.reporting.learning_curve import LearningCurve

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#999999"
MAX_CLASSES_WITH_COUNTS = 20  # with more classes, the cells of the confusion matrix show no counts
DPI = 144  # sharp on a high-resolution screen
WIDTH = 5.5  # inches; narrow enough for legible text on a phone
NORMAL_95 = 1.96  # standard errors on either side of the mean in a 95 % interval
MIN_BIN_PREDICTIONS = 5  # in a bin of the calibration curve; the accuracy of fewer says nothing


def draw(
    class_names: Sequence[str],
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]] | None,
    mistakes: Sequence[Mistake],
    curve: LearningCurve | None = None,
) -> dict[str, bytes]:
    """Name → PNG file. The training curves need a `history` of epochs, `more_images` a learning `curve`."""
    import matplotlib

    fonts, names = drawable_names(class_names)
    with matplotlib.rc_context({"font.family": fonts}):
        figures = {
            "confusion": _confusion(names, evaluation),
            "calibration": _calibration(evaluation),
            "mistakes": _mistakes(names, mistakes),
        }
        if history:
            figures["learning_curves"] = _training_curves(history)
        if curve:
            figures["more_images"] = _more_images(curve)
        return {name: draw_png(figure) for name, figure in figures.items()}


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of `width` by `height` inches."""
    # Not pyplot, which keeps every figure alive and looks for a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def draw_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # `savefig` would lay out and draw everything twice
    return encode_png(np.asarray(canvas.buffer_rgba())[:, :, :3])


def _training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    figure = new_figure(WIDTH, 5.8)
    loss, accuracy = figure.subplots(2, 1)
    epochs = [entry["epoch"] for entry in history]
    for axes, key, scale, unit in ((loss, "loss", 1, "cross-entropy"), (accuracy, "accuracy", 100, "%")):
        axes.plot(epochs, [scale * entry[key] for entry in history], "o-", color=BLUE, label="training")
        axes.plot(epochs, [scale * entry[f"val_{key}"] for entry in history], "s--", color=ORANGE, label="validation")
        axes.set(title=key.capitalize(), xlabel="epoch", ylabel=f"{key} ({unit})")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _more_images(curve: LearningCurve) -> Figure:
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    images, accuracy = np.array(curve.images), 100 * curve.accuracy
    draws = 100 * curve.accuracies[:-1]
    axes.plot(
        np.repeat(images[:-1], draws.shape[1]),
        draws.ravel(),
        "o",
        mfc="none",
        color=GRAY,
        zorder=3,
        label="single draws",
    )
    axes.errorbar(images, accuracy, 100 * NORMAL_95 * curve.errors, fmt="o-", capsize=4, color=BLUE, label="mean")
    if curve.doubling:
        low, high = (accuracy[-1] + 100 * end for end in curve.doubling)
        axes.plot([images[-1], 2 * images[-1]], [accuracy[-1], (low + high) / 2], "--", color=ORANGE)
        axes.vlines(2 * images[-1], low, high, color=ORANGE, linewidth=6, label="likely with twice as many")
    axes.set(xlabel="training images", ylabel="validation accuracy (%)", xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _confusion(class_names: Sequence[str], evaluation: Evaluation) -> Figure:
    from matplotlib.colors import PowerNorm

    side = float(np.clip(1.5 + 0.4 * len(class_names), 4.5, 14))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    shares = evaluation.confusion / np.maximum(evaluation.confusion.sum(1, keepdims=True), 1)
    # Square-root scale: mistakes are rare, and one in a hundred should be visible.
    image = axes.imshow(100 * shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    axes.set(title="Confusion matrix", xlabel="prediction", ylabel="truth")
    _name_ticks(axes, class_names, x=True)
    _name_ticks(axes, class_names, x=False)
    if len(class_names) <= MAX_CLASSES_WITH_COUNTS:
        size = 12 if len(class_names) <= 10 and evaluation.confusion.max() < 1000 else 8
        for (row, column), count in np.ndenumerate(evaluation.confusion):
            if count:
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
    return figure


def _calibration(evaluation: Evaluation) -> Figure:
    figure = new_figure(WIDTH, 5)
    axes = figure.subplots()
    filled = evaluation.bin_counts > 0
    sufficient = evaluation.bin_counts >= MIN_BIN_PREDICTIONS
    edges = (np.arange(CALIBRATION_BINS) + 0.5) * 100 / CALIBRATION_BINS
    axes.bar(
        edges[filled],
        100 * evaluation.bin_counts[filled] / evaluation.bin_counts.sum(),
        100 / CALIBRATION_BINS,
        color=GRAY,
        alpha=0.4,
        label="share of the predictions",
    )
    axes.plot([0, 100], [0, 100], "--", color="black", linewidth=1, label="perfectly calibrated")
    axes.plot(
        100 * evaluation.bin_confidence[sufficient],
        100 * evaluation.bin_accuracy[sufficient],
        "o-",
        color=BLUE,
        label="model",
    )
    axes.set(
        title=f"Calibration (expected error {100 * evaluation.calibration_error:.1f} %)",
        xlabel="predicted probability (%)",
        ylabel="correct predictions (%)",
        xlim=(0, 100),
        ylim=(0, 102),
    )
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _mistakes(class_names: Sequence[str], mistakes: Sequence[Mistake]) -> Figure:
    columns = 4
    rows = max(1, -(-len(mistakes) // columns))
    height = 2.6 * rows + 0.6
    # The layout of so many panels would take longer than all else.
    figure = new_figure(2.3 * columns, height, layout=None)
    figure.suptitle("The most confident mistakes" if mistakes else "No mistakes", y=1 - 0.2 / height)
    grid = {"left": 0.02, "right": 0.98, "bottom": 0.1 / height, "top": 1 - 0.9 / height, "hspace": 0.3}
    panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid).flat
    for axes in panels:
        axes.set_axis_off()
    for axes, mistake in zip(figure.axes, mistakes, strict=False):
        image = mistake.image[:, :, 0] if mistake.image.shape[2] == 1 else mistake.image
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        truth, predicted = class_names[mistake.true], class_names[mistake.predicted]
        axes.set_title(f"{truth}, taken for\n{predicted} ({100 * mistake.probability:.0f} %)", fontsize=8)
    return figure


def _name_ticks(axes: Axes, class_names: Sequence[str], *, x: bool) -> None:
    """Class names at the ticks: all of up to 100 classes (in small type above 40), every n-th of more."""
    every = -(-len(class_names) // 100)
    size = 10 if len(class_names) <= 40 else 7
    positions = list(range(0, len(class_names), every))
    names = [class_names[position] for position in positions]
    long = max(map(len, names)) > 3
    if x:
        axes.set_xticks(positions, names, rotation=60 if long else 0, ha="right" if long else "center", fontsize=size)
    else:
        axes.set_yticks(positions, names, fontsize=size)
