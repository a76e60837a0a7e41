"""Draw the documentation's diagrams: the network, read from the real Keras model, and the system.

Usage: python scripts/draw_diagrams.py [FOLDER], by default docs/images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.path import Path as CurvePath

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
# (fill, edge) from the palette of Okabe and Ito, which colour-blind people can tell apart.
GRAY, BLUE, GREEN, ORANGE = (
    ("#eeeeee", "#555555"),
    ("#d3e8f5", "#0072b2"),
    ("#d0ece3", "#007a5a"),
    ("#fbe3cc", "#b85000"),
)
TEXT, MUTED = "#1a1a1a", "#555555"
Point = tuple[float, float]


@dataclass
class Block:
    """Layer with the weightless layers that follow it, such as its pooling: drawn together."""

    name: str
    kind: str  # class name of the layer
    shape: tuple[int, ...]  # output shape without the batch
    weights: int
    descriptions: list[str]  # one for each layer of the block
    sources: list[str]  # names of the blocks that feed it
    column: int = 0
    lane: float = 0.0
    size: Point = field(default=(0.0, 0.0))  # width and height in inches, once drawn


def read_blocks(model: Any) -> list[Block]:
    """Blocks of a Keras model in its order, each with its column (depth) and its lane (among blocks of that depth)."""
    blocks: dict[str, Block] = {}
    block_of_layer: dict[str, Block] = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        kind = type(layer).__name__
        layers = [] if kind == "InputLayer" else [tensor._keras_history.operation.name for tensor in inputs]
        sources = [block_of_layer[name] for name in layers]
        if len(sources) == 1 and not layer.count_params():
            sources[0].descriptions.append(describe(layer))
            block_of_layer[layer.name] = sources[0]
            continue
        block = Block(
            name=layer.name,
            kind=kind,
            shape=tuple(layer.output.shape[1:]),
            weights=layer.count_params(),
            descriptions=[describe(layer)],
            sources=[source.name for source in sources],
            column=1 + max((source.column for source in sources), default=-1),
        )
        blocks[layer.name] = block_of_layer[layer.name] = block
    for column in range(1 + max(block.column for block in blocks.values())):
        peers = [block for block in blocks.values() if block.column == column]
        for index, block in enumerate(peers):
            block.lane = (len(peers) - 1) / 2 - index
    return list(blocks.values())


def describe(layer: Any) -> str:
    """Description of a layer in one or two lines. Raises ValueError for a layer class without a description."""
    config = layer.get_config()
    match type(layer).__name__:
        case "InputLayer":
            text = f"an image, {config['dtype']}"
        case "Rescaling":
            text = f"times 1/{1 / config['scale']:.0f}"
        case "Conv2D":
            text = f"{times(config['kernel_size'])} convolution"
        case "MaxPooling2D":
            text = f"{times(config['pool_size'])} max-pool"
        case "Concatenate":
            text = "concatenation"
        case "Dropout":
            text = f"dropout {config['rate']:g}"
        case "Flatten":
            text = f"{layer.output.shape[1]:,} in a row"
        case "Dense":
            text = "fully connected"
        case other:
            raise ValueError(f"{layer.name}: no description for a {other} layer")
    return f"{text}\nReLU" if config.get("activation") == "relu" else text


def times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def draw_network(model: Any) -> Figure:
    """Diagram of a Keras model: feature maps as stacks, sized by the logarithm of side and depth; vectors as bars."""
    blocks = {block.name: block for block in read_blocks(model)}
    columns = 1 + max(block.column for block in blocks.values())
    lanes = 1 + 2 * max(block.lane for block in blocks.values())
    spacing, lane_height = 1.62, 2.9
    figure, axes = canvas(columns * spacing + 0.1, lanes * lane_height + 0.75)
    axes.text(0.15, axes.get_ylim()[1] - 0.2, model.name, size=17, weight="bold", va="top", color=TEXT)
    facts = f"{times(model.input_shape[1:])} in, {model.output_shape[-1]} scores out, {model.count_params():,} weights"
    axes.text(0.17, axes.get_ylim()[1] - 0.58, facts, size=12, va="top", color=MUTED)
    centres = {
        block.name: ((block.column + 0.5) * spacing, (lanes / 2 + block.lane) * lane_height)
        for block in blocks.values()
    }
    for block in blocks.values():
        draw_block(axes, block, centres[block.name])
    for block in blocks.values():
        x, y = centres[block.name]
        for source in map(blocks.__getitem__, block.sources):
            start, height = centres[source.name]
            left, right = (start + source.size[0] / 2 + 0.06, height), (x - block.size[0] / 2 - 0.06, y)
            # Horizontal at both ends; the last segment is straight, for the arrow head.
            middle, near = (left[0] + right[0]) / 2 - 0.08, right[0] - 0.16
            arrow(axes, [left, (middle, height), (middle, y), (near, y), right])
    return figure


def draw_block(axes: Axes, block: Block, centre: Point) -> None:
    """Draws the block: name and shape above, descriptions below. Sets `block.size`."""
    x, y = centre
    fill, edge = {"InputLayer": GRAY, "Concatenate": GREEN, "Dense": ORANGE}.get(block.kind, BLUE)
    if len(block.shape) == 3:
        side = 0.15 + 0.17 * float(np.log2(block.shape[0]))
        depth = 0.05 * float(np.log2(block.shape[2]))
    else:
        side, depth = 0.17 * float(np.log2(block.shape[0])), 0.0
    width = side if len(block.shape) == 3 else 0.22
    block.size = (width + depth, side + depth)
    left, bottom = x - block.size[0] / 2, y - block.size[1] / 2
    for offset in np.linspace(depth, 0, 1 + round(depth / 0.07)):  # feature maps, from the back
        low, high, near, far = bottom + offset, bottom + offset + side, left + offset, left + offset + width
        axes.add_patch(Polygon([(near, low), (far, low), (far, high), (near, high)], fc=fill, ec=edge, lw=1.1))
    if block.kind == "InputLayer":
        axes.text(left + width / 2, y, "7", size=40, ha="center", va="center_baseline", color=TEXT)
    top = y + block.size[1] / 2
    axes.text(x, top + 0.36, block.name, size=13, weight="bold", ha="center", color=TEXT)
    axes.text(x, top + 0.13, times(block.shape), size=12, ha="center", color=TEXT)
    lines = [*block.descriptions, f"{block.weights:,} weights"] if block.weights else block.descriptions
    axes.text(x, y - block.size[1] / 2 - 0.12, "\n".join(lines), size=10.5, ha="center", va="top", color=MUTED)


def draw_system() -> Figure:
    """Diagram of the system, from a folder of images to servers: a grid of boxes, placed by hand."""
    width, height, across, down = 2.35, 1.22, 3.05, 1.85
    figure, axes = canvas(3 * across + width + 0.5, 2 * down + height + 0.5)
    boxes = {
        "W&B": (0, 2, GRAY, "Weights & Biases", "curves of every run,\nif you have an account"),
        "sweep": (1, 2, BLUE, "trainer sweep", "tries many settings,\nkeeps the best"),
        "client": (3, 2, GRAY, "A program, a browser", "sends an image, gets its\nlabel and probability"),
        "data": (0, 1, GRAY, "Your images", "a folder for each class,\nor a TFDS data set"),
        "fit": (1, 1, BLUE, "trainer fit", "trains on them,\nfreezes the result"),
        "store": (2, 1, GREEN, "Model store", "versions, each with\nhashes; never half written"),
        "serve": (3, 1, BLUE, "bentoml serve", "HTTP server on this\nmachine, with a page"),
        "report": (1, 0, GREEN, "report.html", "how accurate it is,\nand its mistakes"),
        "image": (2, 0, BLUE, "bentoml containerize", "a container image with\nserver and model"),
        "rollout": (3, 0, BLUE, "make rollout", "new version on a cluster,\nno failed request"),
    }
    left, bottom = 0.25 + width / 2, 0.25 + height / 2
    centres = {name: (left + x * across, bottom + y * down) for name, (x, y, *_) in boxes.items()}
    for name, (*_, (fill, edge), title, text) in boxes.items():
        x, y = centres[name]
        corner = (x - width / 2 + 0.1, y - height / 2 + 0.1)
        shape = FancyBboxPatch(corner, width - 0.2, height - 0.2, "round,pad=0.1", fc=fill, ec=edge, lw=1.4)
        axes.add_patch(shape)
        command = fill == BLUE[0]
        family = "DejaVu Sans Mono" if command else "DejaVu Sans"
        axes.text(x, y + 0.3, title, size=12, weight="bold", ha="center", va="center", color=TEXT, family=family)
        axes.text(x, y - 0.2, text, size=11, ha="center", va="center", color=TEXT, linespacing=1.3)

    def link(start: str, end: str, style: str = "-|>", *, dashed: bool = False) -> None:
        (x, y), (to_x, to_y) = centres[start], centres[end]
        edge_x, edge_y = np.sign([to_x - x, to_y - y]) * (width / 2 + 0.06, height / 2 + 0.06)
        arrow(axes, [(x + edge_x, y + edge_y), (to_x - edge_x, to_y - edge_y)], style=style, dashed=dashed)

    for start, end in (("data", "fit"), ("fit", "store"), ("store", "serve"), ("fit", "report"), ("store", "image")):
        link(start, end)
    link("image", "rollout")
    link("sweep", "fit", "<|-|>")
    link("client", "serve", "<|-|>")
    for start in ("sweep", "fit"):
        link(start, "W&B", dashed=True)
    return figure


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """White canvas whose coordinates are inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def arrow(axes: Axes, points: Sequence[Point], *, style: str = "-|>", dashed: bool = False) -> None:
    """Straight arrow through two points, or through five: the four of a Bézier curve, then a straight end."""
    curve = [CurvePath.CURVE4] * 3 if len(points) == 5 else []
    path = CurvePath(points, [CurvePath.MOVETO, *curve, CurvePath.LINETO])
    line = "--" if dashed else "-"
    axes.add_patch(FancyArrowPatch(path=path, arrowstyle=style, mutation_scale=13, lw=1.5, ls=line, color=MUTED))


def main() -> None:
    from trainer.config import FitConfig
    from trainer.models import build
    from trainer.models.branched_cnn import BRANCHED_CNN

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    model = build(
        BRANCHED_CNN.name,
        input_shape=(28, 28, 1),
        classes=10,
        dropout=BRANCHED_CNN.recipe.dropout,
        kernel_size=FitConfig.kernel_size,
    )
    # Letters as outlines look the same on every machine. Without a date and random ids an unchanged diagram gives the
    # same file.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "trainer"}):
        for name, figure in (("network", draw_network(model)), ("system", draw_system())):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
