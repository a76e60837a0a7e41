from __future__ import annotations

import dataclasses

import pytest

from trainer.config import FitConfig, parse_image_size
from trainer.errors import InputError


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("epochs", 0, "--epochs: 0 is out of range; 1 to 10000"),
        ("batch_size", 0, "--batch-size: 0 is out of range"),
        ("learning_rate", 11.0, "--learning-rate: 11.0 is out of range"),
        ("learning_rate", float("nan"), "--learning-rate: nan is out of range"),
        ("dropout", 1.0, "--dropout: 1.0 is out of range"),
        ("weight_decay", -0.1, "--weight-decay: -0.1 is out of range"),
        ("kernel_size", 0, "--kernel-size: 0 is out of range"),
        ("seed", -1, "--seed: -1 is out of range"),
        ("limit", 0, "--limit: 0 is out of range"),
        (
            "optimizer",
            "adamv",
            "--optimizer: 'adamv' is not one of adam, adamw, sgd; did you mean adam or adamw?",
        ),
        ("normalize", "x", "--normalize: 'x' is not one of auto, mnist, none"),
        ("augment", "x", "--augment: 'x' is not one of"),
        ("class_weights", "x", "--class-weights: 'x' is not one of balanced, none"),
        ("precision", "float16", "--precision: 'float16' is not one of"),
        ("wandb", "on", "--wandb: 'on' is not one of"),
        ("name", "Bad Name", "--name: 'Bad Name' is no model name"),
    ],
)
def test_wrong_values_are_refused_by_name(option: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        FitConfig(dataset="builtin:digits", **{option: value})  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_image_size() -> None:
    assert parse_image_size(None) is None
    assert parse_image_size("28") == (28, 28)
    assert parse_image_size("24x32") == (24, 32)
    for text in ("7", "2000", "28x", "x28", "28,28", "-28", ""):
        with pytest.raises(InputError, match="--image-size"):
            parse_image_size(text)


def test_only_options_that_affect_the_result_change_the_hash() -> None:
    config = FitConfig(dataset="builtin:digits")
    assert config.hash() == FitConfig(dataset="builtin:digits", save=False, name="other").hash()
    assert config.hash() != dataclasses.replace(config, seed=1).hash()
    assert config.hash() != dataclasses.replace(config, learning_rate=2e-3).hash()


def test_command_has_the_options_that_differ_from_their_defaults() -> None:
    config = FitConfig(dataset="folder:my pets", image_size=(28, 32), learning_rate=2e-3, name="pets", save=False)
    expected = [
        "trainer",
        "fit",
        "--dataset=folder:my pets",
        "--image-size=28x32",
        "--learning-rate=0.002",
        "--name=pets",
    ]
    assert config.command() == expected
