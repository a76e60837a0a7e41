"""Documentation diagrams: the committed SVG files match the real model."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.models import build

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(PROJECT / "scripts" / "draw_diagrams.py"))


@pytest.fixture(scope="module")
def model() -> Any:
    return build("branched_cnn", input_shape=(28, 28, 1), classes=10, dropout=0.4, kernel_size=3)


def text_lines(figure: Figure) -> list[str]:
    return [line for text in figure.axes[0].texts for line in text.get_text().split("\n")]


def test_blocks_match_the_models_layers(model: Any) -> None:
    blocks = {block.name: block for block in SCRIPT["read_blocks"](model)}
    assert {name: (block.shape, block.sources, block.column, block.lane) for name, block in blocks.items()} == {
        "images": ((28, 28, 1), [], 0, 0),
        "conv1": ((28, 28, 32), ["images"], 1, 0),
        "conv2_1": ((14, 14, 64), ["conv1"], 2, 0.5),
        "conv2_2": ((14, 14, 64), ["conv1"], 2, -0.5),
        "conv3_1": ((7, 7, 256), ["conv2_1"], 3, 0.5),
        "conv3_2": ((7, 7, 256), ["conv2_2"], 3, -0.5),
        "conv3": ((7, 7, 512), ["conv3_1", "conv3_2"], 4, 0),
        "fc1": ((1000,), ["conv3"], 5, 0),
        "fc2": ((500,), ["fc1"], 6, 0),
        "output": ((10,), ["fc2"], 7, 0),
    }
    assert sum(block.weights for block in blocks.values()) == model.count_params() == 25_927_246
    assert blocks["conv1"].descriptions == ["3×3 convolution\nReLU", "2×2 max-pool"]
    assert blocks["output"].descriptions == ["fully connected"]


def test_diagram_has_the_shapes_and_weights_of_any_model() -> None:
    other = build("branched_cnn", input_shape=(16, 16, 3), classes=4, dropout=0.25, kernel_size=5)
    shown = text_lines(SCRIPT["draw_network"](other))
    assert {"16×16×3", "5×5 convolution", "4×4×512", "dropout 0.25", "8,192 in a row"} <= set(shown)
    assert f"16×16×3 in, 4 scores out, {other.count_params():,} weights" in shown


def test_layer_without_a_description_raises() -> None:
    resnet = build("compact_resnet", input_shape=(32, 32, 3), classes=4, dropout=0.2, kernel_size=3)
    with pytest.raises(ValueError, match=r"no description for a .+ layer"):
        SCRIPT["draw_network"](resnet)


@pytest.mark.parametrize("name", ["network", "system"])
def test_committed_svg_has_the_text_of_the_diagram(name: str, model: Any) -> None:
    figure = SCRIPT["draw_network"](model) if name == "network" else SCRIPT["draw_system"]()
    file = PROJECT / "docs" / "images" / f"{name}.svg"
    text = file.read_text(encoding="utf-8")
    # Letters are outlines; Matplotlib writes the text beside them as comments.
    assert [line for line in re.findall(r"<!-- (.+?) -->", text, re.DOTALL) for line in line.split("\n")] == [
        line.replace("&", "&amp;") for line in text_lines(figure)
    ]
    assert file.stat().st_size < 150_000
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    assert (pixels[0] == 255).all()  # a white border: nothing is cut off
    assert (pixels[:, 0] == 255).all()
    assert (pixels[-1] == 255).all()
    assert (pixels[:, -1] == 255).all()
    assert pixels.std() > 20
