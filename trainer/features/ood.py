"""Out-of-distribution score: how far an image's features are from those of the training images.

The similarity of an image is the cosine similarity of its features to the fifth nearest of some training images (Sun et
al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022). The score is the share of validation images
with a higher similarity, scaled so that it passes MAX_OOD_SCORE, from which on an image is not known, where about
REFUSED_SHARE of images like those of validation do: 0 to 1 for every network. It is part of the network, whose output
is named `novelty`. `docs/decisions.md` has the alternatives that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFERENCES = 256  # training images, or one of each class where there are more classes; each costs a little time
NEIGHBOURS = 5
MAX_SIMILARITIES = 1000  # validation images whose similarity is stored: the score's resolution is a thousandth
REFUSED_SHARE = 0.03  # expected of images like those of validation; 1 in V + 1 where there are few validation images
# Scores of an image at the limit (the validation image that is the last to be known) and beyond; MAX_OOD_SCORE is
# between these two.
NEARER_THAN_LIMIT, FARTHER_THAN_LIMIT = 0.99, 0.9975


@dataclass(frozen=True, eq=False)
class OODScore:
    """Scores features float32 [N,F] of one network."""

    references: NDArray[np.float32]  # [R,F], of unit length
    similarities: NDArray[np.float32]  # [V], of validation images, ascending
    weights: NDArray[np.float32]  # [V], of these in the score; their sum is 1

    def __call__(self, features: Any) -> Any:
        """Features float32 [N,F] → scores float32 [N] from 0 to 1, both as TensorFlow tensors."""
        import tensorflow as tf

        nearer = self.similarities[None] > similarity(features, self.references)[:, None]
        return tf.matmul(tf.cast(nearer, tf.float32), self.weights[:, None])[:, 0]


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
    return OODScore(unit, similarities[kept], _weights(len(kept)))


def _weights(images: int) -> NDArray[np.float32]:
    """Weights float32 [V] in the score of V validation images, the farthest first.

    An image is not known if it is farther than the R-th farthest of them. Of images drawn alike, R in V + 1 are, so
    that R is REFUSED_SHARE of V + 1, and at least 1.
    """
    beyond = max(1, int(REFUSED_SHARE * (images + 1))) - 1  # farther than the one at the limit
    nearer = images - beyond - 1
    at_limit = FARTHER_THAN_LIMIT - NEARER_THAN_LIMIT
    weights = np.repeat(
        [(1 - FARTHER_THAN_LIMIT) / max(1, beyond), at_limit, NEARER_THAN_LIMIT / max(1, nearer)], [beyond, 1, nearer]
    )
    return (weights / weights.sum()).astype(np.float32)


def similarity(features: Any, references: NDArray[np.float32]) -> Any:
    """Cosine similarity, float32 [N], of features [N,F] to the last of the NEIGHBOURS nearest `references` [R,F]."""
    import tensorflow as tf

    cosines = tf.matmul(tf.math.l2_normalize(features, axis=1), references, transpose_b=True)
    return tf.math.top_k(cosines, k=min(NEIGHBOURS, len(references))).values[:, -1]
