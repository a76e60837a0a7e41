"""What more training images would bring: accuracy by their number, as it was measured, and what follows from it.

The law is the one that learning curves have been found to follow: the share of mistakes falls with a power of the
number of training images, down to a floor (Figueroa et al., "Predicting sample size required for classification
performance", 2012; Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017). Four sizes do not tell
the floor, so both ends are asked. Without a floor, the next doubling saves the same share of the mistakes as the last
one: the most. Where mistakes above the floor go with one over the number, it saves half as many as the last one: the
least.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SAMPLES = 4000  # of what may have been measured on other images, for the ranges
LIKELY = (10, 90)  # percentiles
OFF_THE_LAW = 3  # standard errors between a point and the law, from which on the law says nothing
TELLING_IMAGES = 100  # validation images, below which nothing is said of twice as many
WORTH = 0.01  # accuracy, 0..1; less is hardly worth the work of doubling
NOTHING = 0.0005  # accuracy that reads as 0.0 points


@dataclass(frozen=True)
class LearningCurve:
    """The accuracy of a head on fixed features with P growing shares of the training images, the last being all.

    The smaller shares were drawn D times. All heads name the same V validation images.
    """

    images: tuple[int, ...]  # [P] training images
    right: NDArray[np.bool_]  # [P,D,V], whether a validation image was named right; the draws of the last are all alike

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Of each draw, [P,D], 0..1."""
        return self.right.mean(2)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """[P], 0..1."""
        return self.accuracies.mean(1)

    @property
    def errors(self) -> NDArray[np.float64]:
        """The standard error of each accuracy, [P]."""
        return np.sqrt(np.diag(self._covariance))

    @cached_property
    def doubling(self) -> tuple[float, float] | None:
        """Where the accuracy gained by twice as many images likely lies; None where the measured says too little."""
        if self.right.shape[2] < TELLING_IMAGES or not self._follows_law:
            return None
        exponent, _ = self._fit(self._samples)
        mistakes = 1 - self._samples[:, -1]
        luck = np.random.default_rng(1).normal(scale=np.sqrt(self._draw_variance / 2), size=SAMPLES)
        most = mistakes * (1 - 2.0**-exponent) + luck
        least = mistakes * (2.0**exponent - 1) / 2 + luck
        low, high = np.percentile(np.minimum(most, least), LIKELY[0]), np.percentile(np.maximum(most, least), LIKELY[1])
        return float(low), float(high)

    @property
    def rises(self) -> bool:
        """Whether twice as many images likely bring something."""
        return self.doubling is not None and self.doubling[0] >= NOTHING and self.doubling[1] >= WORTH

    @property
    def flat(self) -> bool:
        """Whether twice as many images likely bring nothing worth the work."""
        return self.doubling is not None and self.doubling[1] < WORTH

    @property
    def in_words(self) -> str:
        """What was measured and what follows from it: a sentence without its full stop."""
        half = int(np.abs(np.array(self.images) / self.images[-1] - 0.5).argmin())
        return (
            f"with {self.images[half]:,} of the {self.images[-1]:,} training images {_percent(self.accuracy[half])} of "
            f"the validation images are named right, with all of them {_percent(self.accuracy[-1])}; {self.outlook}"
        )

    @property
    def outlook(self) -> str:
        """What follows for twice as many images: a clause."""
        if self.doubling is None:
            return "what more would bring cannot be told from so few, or from a curve like this"
        low, high = (f"{100 * end:.1f}" for end in self.doubling)
        if self.flat:
            return "twice as many would likely bring less than 1 point: more of the same images hardly help"
        if self.rises:
            return f"twice as many would likely bring {low} to {high} points more"
        return f"twice as many would likely bring at most {high} points more, and perhaps none"

    @property
    def _draw_variance(self) -> float:
        """How much the accuracy with all images differs from one set of so many images to another.

        A mean of a share p of n values, drawn without replacement, has 1/p - 1 times the variance of the mean of n.
        """
        shares = np.array(self.images[:-1]) / self.images[-1]
        return float((self.accuracies[:-1].var(1, ddof=1) / (1 / shares - 1)).mean())

    @property
    def _covariance(self) -> NDArray[np.float64]:
        """Of the accuracies, [P,P]: the validation images are a draw, and so are the shares, each within the next."""
        images = np.array(self.images)
        larger = np.maximum.outer(images, images) / images[-1]
        draws = self._draw_variance * (1 / larger - 1) / self.right.shape[1]
        return np.cov(self.right.mean(1), bias=True) / self.right.shape[2] + draws

    @cached_property
    def _samples(self) -> NDArray[np.float64]:
        """Accuracies that might have been measured as well, [SAMPLES,P]."""
        random = np.random.default_rng(0)
        samples = random.multivariate_normal(self.accuracy, self._covariance, size=SAMPLES, method="eigh")
        return np.clip(samples, 0, 1)

    def _fit(self, accuracies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The power law without a floor through accuracies [N,P]: its exponents [N], and how far it is off [N,P]."""
        smallest = 0.5 / self.right.shape[2]  # half a mistake: its logarithm is asked
        logs = np.log(np.maximum(1 - accuracies, smallest))
        sizes = np.log(np.array(self.images))
        sizes -= sizes.mean()
        centred = logs - logs.mean(1, keepdims=True)
        slope = centred @ sizes / (sizes @ sizes)
        return -slope, centred - np.outer(slope, sizes)

    @property
    def _follows_law(self) -> bool:
        """Whether no point is further from the law than chance explains."""
        off = self._fit(self.accuracy[None])[1][0]
        noise = self._fit(self._samples)[1].std(0)
        return bool((np.abs(off) <= OFF_THE_LAW * noise + 1e-9).all())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
