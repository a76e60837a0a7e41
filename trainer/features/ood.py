"""How far the features of an image are from those that were learnt from, as a part of the network.

The likeness of an image is the cosine similarity of its features to those of the fifth nearest of some training images
(Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022). Its novelty is the share of the
validation images that are more like them: 0 to 1, whatever the network. `docs/decisions.md` has what else was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCES = 256  # training images, or one of each class where there are more classes; each costs a little time
NEIGHBOURS = 5
MOST_KNOWN = 1000  # validation images whose likeness is kept: a novelty is then told to a thousandth


@dataclass(frozen=True, eq=False)
class Novelty:
    """Of a network with features float32 [N,F]."""

    references: NDArray[np.float32]  # [R,F], of unit length
    likenesses: NDArray[np.float32]  # [V], of validation images

    def __call__(self, features: Any) -> Any:
        """The novelty, float32 [N] from 0 to 1, of features float32 [N,F]; both are TensorFlow's."""
        import tensorflow as tf

        nearer = self.likenesses[None] > likeness(features, self.references)[:, None]
        return tf.reduce_mean(tf.cast(nearer, tf.float32), axis=1)


def choose_references(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """The positions of about REFERENCES of the images with these labels [N]: equally many of each class, drawn at
    random, and always the same ones.
    """
    drawn = np.random.default_rng(0).permutation(len(labels))
    of_class = [drawn[labels[drawn] == label] for label in np.unique(labels)]
    each = max(1, REFERENCES // len(of_class))
    return np.sort(np.concatenate([positions[:each] for positions in of_class]))


def fit_novelty(references: NDArray[np.float32], val: NDArray[np.float32]) -> Novelty:
    """From the features of training images [R,F], and of the validation images [V,F], which are not among them."""
    unit = references / np.maximum(np.linalg.norm(references, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    likenesses = np.sort(np.asarray(likeness(val, unit)))
    kept = np.linspace(0, len(likenesses) - 1, min(len(likenesses), MOST_KNOWN)).round().astype(np.int64)
    return Novelty(unit, likenesses[kept])


def likeness(features: Any, references: NDArray[np.float32]) -> Any:
    """Cosine similarity, float32 [N], of features [N,F] to the last of the NEIGHBOURS nearest `references` [R,F]."""
    import tensorflow as tf

    similarities = tf.matmul(tf.math.l2_normalize(features, axis=1), references, transpose_b=True)
    return tf.math.top_k(similarities, k=min(NEIGHBOURS, len(references))).values[:, -1]
