from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.errors import ArtifactError
from trainer.export.freeze import freeze, save_frozen
from trainer.export.stored_weights import FILE, read_weights
from trainer.features.ood import fit_ood_score
from trainer.models import build

TEMPERATURE = 1.7


def network(name: str, side: int, classes: int, *, kernel_size: int = 3) -> Any:
    channels = 1 if name == "branched_cnn" else 3
    return build(name, input_shape=(side, side, channels), classes=classes, dropout=0.1, kernel_size=kernel_size)


def with_random_weights(model: Any) -> list[NDArray[np.float32]]:
    """Set every weight of the model → the weights."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(1, 0.1, weight.shape).astype(np.float32) for weight in model.weights]
    model.set_weights(weights)
    return weights


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("branched_cnn", 8),
        ("compact_resnet", 16),
        ("efficientnet_lite0", 32),
        ("keras.applications:MobileNetV3Small", 32),
        # Some of its layers are functions of their own in the graph.
        pytest.param("keras.applications:ConvNeXtTiny", 32, marks=pytest.mark.slow),
    ],
)
def test_every_weight_is_read_for_a_network_with_other_classes(name: str, side: int, tmp_path: Path) -> None:
    stored = network(name, side, classes=4)
    weights = with_random_weights(stored)
    features = "features" if name == "efficientnet_lite0" else None
    drawn = np.random.default_rng(1).normal(size=(30, 1280)).astype(np.float32)
    save_frozen(freeze(stored, TEMPERATURE, fit_ood_score(drawn, drawn) if features else None, features), tmp_path)
    other = network(name, side, classes=6)
    own = other.get_weights()
    read = read_weights(tmp_path, other)
    assert len(read) == len(weights)
    for index, (found, expected) in enumerate(zip(read, weights, strict=True)):
        np.testing.assert_array_equal(found, expected, err_msg=str(index))
    for found, expected in zip(other.get_weights(), own, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_another_network_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    save_frozen(freeze(network("compact_resnet", 16, classes=2)), tmp_path)
    for name, kernel_size in (("branched_cnn", 3), ("compact_resnet", 5)):
        with pytest.raises(ArtifactError, match="its weights cannot be read"):
            read_weights(tmp_path, network(name, 16, classes=2, kernel_size=kernel_size))
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=f"{FILE}: cannot be read"):
        read_weights(tmp_path, network("compact_resnet", 16, classes=2))
    (tmp_path / FILE).unlink()
    with pytest.raises(ArtifactError, match=f"{FILE}: cannot be read"):
        read_weights(tmp_path, network("compact_resnet", 16, classes=2))
