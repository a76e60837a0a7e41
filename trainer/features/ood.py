"""Out-of-distribution score: how far an image's features are from those of the training images.

The similarity of an image is the cosine similarity of its features to the fifth nearest of some training images (Sun et
al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022). The score is the share of validation images
with a higher similarity: 0 to 1 for every network. It is part of the network, whose output is named `novelty`.
`docs/decisions.md` has the alternatives that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCES = 256  # training images, or one of each class where there are more classes; each costs a little time
NEIGHBOURS = 5
MAX_SIMILARITIES = 1000  # validation images whose similarity is stored: the score's resolution is a thousandth


@dataclass(frozen=True, eq=False)
class OODScore:
    """Scores features float32 [N,F] of one network."""

    references: NDArray[np.float32]  # [R,F], of unit length
    similarities: NDArray[np.float32]  # [V], of validation images, ascending

    def __call__(self, features: Any) -> Any:
        """Features float32 [N,F] → scores float32 [N] from 0 to 1, both as TensorFlow tensors."""
        import tensorflow as tf

        nearer = self.similarities[None] > similarity(features, self.references)[:, None]
        return tf.reduce_mean(tf.cast(nearer, tf.float32), axis=1)


def choose_references(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Positions of about REFERENCES of the images with `labels` [N], the same number of each class.

    A random draw that is always the same.
    """
    drawn = np.random.default_rng(0).permutation(len(labels))
    of_class = [drawn[labels[drawn] == label] for label in np.unique(labels)]
    each = max(1, REFERENCES // len(of_class))
    return np.sort(np.concatenate([positions[:each] for positions in of_class]))


def fit_ood_score(references: NDArray[np.float32], val: NDArray[np.float32]) -> OODScore:
    """Fit on features of training images [R,F] and of validation images [V,F], which are not among them."""
    unit = references / np.maximum(np.linalg.norm(references, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    similarities = np.sort(np.asarray(similarity(val, unit)))
    kept = np.linspace(0, len(similarities) - 1, min(len(similarities), MAX_SIMILARITIES)).round().astype(np.int64)
    return OODScore(unit, similarities[kept])


def similarity(features: Any, references: NDArray[np.float32]) -> Any:
    """Cosine similarity, float32 [N], of features [N,F] to the last of the NEIGHBOURS nearest `references` [R,F]."""
    import tensorflow as tf

    cosines = tf.matmul(tf.math.l2_normalize(features, axis=1), references, transpose_b=True)
    return tf.math.top_k(cosines, k=min(NEIGHBOURS, len(references))).values[:, -1]
