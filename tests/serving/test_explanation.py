from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Outputs
from trainer.artifact.explain import explain, load_activation_engine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.export.freeze import save_activation
from trainer.images.saliency import OCCLUSIONS
from trainer.models import build
from trainer.serving.explanation import Explainer
from trainer.serving.memory import MemoryBudget
from trainer.serving.responses import ApiError

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
ANSWER = {PROBABILITIES: np.array([0.1, 0.7, 0.2], np.float32)}


async def not_called(_: NDArray[np.uint8]) -> Sequence[Outputs]:
    raise AssertionError


@pytest.fixture(scope="module")
def pooled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the activation map of an untrained network."""
    folder: Path = tmp_path_factory.mktemp("pooled_folder")
    model = build("compact_resnet", input_shape=(32, 32, 3), classes=3, dropout=0.0, kernel_size=3)
    save_activation(model, folder / EXPLAIN_FILE)
    return folder


def test_the_activation_engine_is_charged_only_while_it_explains(pooled_folder: Path) -> None:
    needed = 8 * (pooled_folder / EXPLAIN_FILE).stat().st_size
    memory = MemoryBudget(needed)
    explainer = Explainer(pooled_folder)
    assert explainer.images == 1

    async def test() -> list[NDArray[np.float32]]:
        explanations = [explainer.explain(IMAGE, ANSWER, not_called, 8, memory) for _ in range(4)]
        return await asyncio.wait_for(asyncio.gather(*explanations), 30)

    maps = asyncio.run(test())
    engine = load_activation_engine(pooled_folder)
    assert engine
    for saliency in maps:
        np.testing.assert_array_equal(saliency, explain(IMAGE, 1, engine, engine))
    assert memory.take(needed)


def test_an_engine_that_fails_to_load_leaves_the_budget_as_it_was(
    pooled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("damaged")

    monkeypatch.setattr("trainer.serving.explanation.load_activation_engine", fail)
    memory = MemoryBudget(1 << 30)
    for _ in range(2):
        with pytest.raises(OSError, match="damaged"):
            asyncio.run(Explainer(pooled_folder).explain(IMAGE, ANSWER, not_called, 8, memory))
    assert memory.take(1 << 30)


def test_an_engine_that_never_fits_is_refused_at_once_with_its_size(pooled_folder: Path) -> None:
    needed = 8 * (pooled_folder / EXPLAIN_FILE).stat().st_size
    memory = MemoryBudget(needed + 100)
    with pytest.raises(ApiError, match=rf"{needed >> 20} MiB are needed .* has {needed >> 20} for all") as caught:
        asyncio.run(Explainer(pooled_folder).explain(IMAGE, ANSWER, not_called, 8, memory, charged=101))
    assert caught.value.code == "not_found"
    assert memory.take(needed + 100)


def test_occlusions_run_in_chunks(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def answer(images: NDArray[np.uint8]) -> Sequence[Outputs]:
        """As probable as the upper left quarter is unchanged."""
        sizes.append(len(images))
        same = (images[:, :16, :16] == IMAGE[:16, :16]).mean((1, 2, 3))
        return [{PROBABILITIES: np.array([0, 0.7 * share, 0], np.float32)} for share in same]

    explainer = Explainer(tmp_path)
    assert explainer.images == OCCLUSIONS
    heat = asyncio.run(explainer.explain(IMAGE, ANSWER, answer, 20, MemoryBudget(0)))
    assert sizes == [20, 20, OCCLUSIONS - 40]
    assert heat[:16, :16].mean() > 0.5
    assert heat[24:, 24:].max() == 0
