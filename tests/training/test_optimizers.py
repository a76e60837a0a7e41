from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import FitConfig, Recipe
from trainer.training.fused_adam import FusedAdam
from trainer.training.optimizers import averaged_weights, make_optimizer
from trainer.training.plan import make_plan

RECIPE = Recipe(epochs=1, batch_size=1, learning_rate=0.5)


def _apply(optimizer: Any, variable: Any, gradient: Any) -> None:
    optimizer.apply([gradient], [variable])


def test_warm_up_and_cosine() -> None:
    config = FitConfig(dataset="x", epochs=1, batch_size=1)
    schedule = make_optimizer(config, RECIPE, make_plan(config, RECIPE, images=100))._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(rates, [0.0, 0.25, 0.5, 0.2525, 0.005], atol=1e-6)


def test_the_fused_update_is_that_of_keras() -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(size=(5, 3)).astype(np.float32)
    gradients = generator.normal(size=(10, 5, 3)).astype(np.float32)
    results = []
    for optimizer in (
        keras.optimizers.Adam(0.01, weight_decay=0.1),
        FusedAdam(0.01, weight_decay=0.1),
    ):
        variable = keras.Variable(start, name="kernel")
        optimizer.build([variable])
        step = tf.function(partial(_apply, optimizer, variable))
        for gradient in gradients:
            step(tf.constant(gradient))
        results.append(variable.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert np.abs(results[0] - start).max() > 0.05


def test_keras_still_has_what_fused_adam_uses_of_its_own() -> None:
    assert callable(keras.optimizers.Optimizer._get_variable_index)


@pytest.mark.parametrize(("name", "decayed"), [("adamw", ["kernel"]), ("sgd", ["kernel"]), ("adam", [])])
def test_weight_decay_spares_biases(name: str, decayed: list[str]) -> None:
    config = FitConfig(dataset="x", optimizer=name)
    optimizer = make_optimizer(config, config.recipe(RECIPE), make_plan(config, RECIPE, images=256))
    variables = [keras.Variable(np.ones(3, np.float32), name=key) for key in ("kernel", "bias", "gamma", "beta")]
    optimizer.build(variables)
    if optimizer.weight_decay is None:
        assert decayed == []
    else:
        assert [v.name for v in variables if optimizer._use_weight_decay(v)] == decayed


@pytest.mark.parametrize(("name", "average"), [("sgd", 0.5), ("adam", 0.5), ("sgd", 0.0)])
def test_a_model_is_judged_by_the_average_of_its_weights(name: str, average: float) -> None:
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=0.5, optimizer=name, weight_decay=0.0, weight_average=average)
    config = FitConfig(dataset="x")
    optimizer = make_optimizer(config, recipe, make_plan(config, recipe, images=256))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    optimizer.build(model.trainable_variables)
    kernel = model.trainable_variables[0]
    expected = kernel.numpy()
    for step in range(5):
        optimizer.apply([tf.ones_like(kernel)], [kernel])
        momentum = average if step else 0.0  # after the first step the average is what there is
        expected = momentum * expected + (1 - momentum) * kernel.numpy()
    trained = kernel.numpy()
    with averaged_weights(optimizer, model):
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)
        assert (kernel.numpy() != trained).all() == (average > 0)
    np.testing.assert_array_equal(kernel.numpy(), trained)
