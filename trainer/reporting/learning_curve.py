"""Learning curve: accuracy by number of training images, and its extrapolation to twice as many.

The share of mistakes falls with a power of the number of training images, down to a floor (Figueroa et al., "Predicting
sample size required for classification performance", 2012; Hestness et al., "Deep Learning Scaling is Predictable,
Empirically", 2017). Four sizes do not determine the floor, so two bounds are computed. Upper bound: without a floor,
the next doubling saves the same share of the mistakes as the last one. Lower bound: where the mistakes above the floor
are proportional to one over the number of images, it saves half as many as the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SAMPLES = 4000  # of the accuracies that other images might have given, for the interval
LIKELY_PERCENTILES = (10, 90)
MAX_DEVIATION = 3  # standard errors between a point and the power law; beyond, nothing is extrapolated
MIN_VAL_IMAGES = 100  # with fewer validation images, nothing is extrapolated
MIN_USEFUL_GAIN = 0.01  # accuracy, 0..1; less is hardly worth the work of doubling
MIN_VISIBLE_GAIN = 0.0005  # accuracy, 0..1; less reads as 0.0 points


@dataclass(frozen=True)
class LearningCurve:
    """Validation results of linear probes that were fitted on P growing subsets of the training images.

    The last subset has all images; each smaller one was drawn D times. All probes predict the same V validation images.
    """

    images: tuple[int, ...]  # [P], number of training images
    correct: NDArray[np.bool_]  # [P,D,V], whether the prediction was correct; the last subset has D equal draws

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Accuracy of each draw, [P,D], 0..1."""
        return self.correct.mean(2)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Mean accuracy over the draws, [P], 0..1."""
        return self.accuracies.mean(1)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Standard error of each mean accuracy, [P]."""
        return np.sqrt(np.diag(self._covariance))

    @cached_property
    def doubling(self) -> tuple[float, float] | None:
        """Likely interval of the accuracy gained by twice as many images; None where the measurements are too few."""
        if self.correct.shape[2] < MIN_VAL_IMAGES or not self._follows_law:
            return None
        exponent, _ = self._fit(self._samples)
        mistakes = 1 - self._samples[:, -1]
        draw_noise = np.random.default_rng(1).normal(scale=np.sqrt(self._draw_variance / 2), size=SAMPLES)
        upper = mistakes * (1 - 2.0**-exponent) + draw_noise
        lower = mistakes * (2.0**exponent - 1) / 2 + draw_noise
        low = np.percentile(np.minimum(upper, lower), LIKELY_PERCENTILES[0])
        high = np.percentile(np.maximum(upper, lower), LIKELY_PERCENTILES[1])
        return float(low), float(high)

    @property
    def rises(self) -> bool:
        """Whether twice as many images likely improve the accuracy."""
        return (
            self.doubling is not None and self.doubling[0] >= MIN_VISIBLE_GAIN and self.doubling[1] >= MIN_USEFUL_GAIN
        )

    @property
    def flat(self) -> bool:
        """Whether twice as many images likely gain less than MIN_USEFUL_GAIN."""
        return self.doubling is not None and self.doubling[1] < MIN_USEFUL_GAIN

    @property
    def summary(self) -> str:
        """Measurement and extrapolation in one sentence, without its full stop."""
        half = int(np.abs(np.array(self.images) / self.images[-1] - 0.5).argmin())
        return (
            f"with {self.images[half]:,} of the {self.images[-1]:,} training images {_percent(self.accuracy[half])} of "
            f"the validation images are named right, with all of them {_percent(self.accuracy[-1])}; {self.outlook}"
        )

    @property
    def outlook(self) -> str:
        """Expected gain of twice as many images: a clause."""
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
        """Variance of the accuracy with all images over other training sets of that size.

        The mean of a share p of n values, drawn without replacement, has 1/p - 1 times the variance of the mean of n.
        """
        shares = np.array(self.images[:-1]) / self.images[-1]
        return float((self.accuracies[:-1].var(1, ddof=1) / (1 / shares - 1)).mean())

    @property
    def _covariance(self) -> NDArray[np.float64]:
        """Covariance of the accuracies, [P,P]: validation images are sampled, and so are the (nested) subsets."""
        images = np.array(self.images)
        larger = np.maximum.outer(images, images) / images[-1]
        draws = self._draw_variance * (1 / larger - 1) / self.correct.shape[1]
        return np.cov(self.correct.mean(1), bias=True) / self.correct.shape[2] + draws

    @cached_property
    def _samples(self) -> NDArray[np.float64]:
        """Random accuracies that other images might have given, [SAMPLES,P]."""
        random = np.random.default_rng(0)
        samples = random.multivariate_normal(self.accuracy, self._covariance, size=SAMPLES, method="eigh")
        return np.clip(samples, 0, 1)

    def _fit(self, accuracies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fit a power law without a floor to accuracies [N,P]: exponents [N] and residuals [N,P]."""
        smallest = 0.5 / self.correct.shape[2]  # half a mistake, as zero has no logarithm
        logs = np.log(np.maximum(1 - accuracies, smallest))
        sizes = np.log(np.array(self.images))
        sizes -= sizes.mean()
        centred = logs - logs.mean(1, keepdims=True)
        slope = centred @ sizes / (sizes @ sizes)
        return -slope, centred - np.outer(slope, sizes)

    @property
    def _follows_law(self) -> bool:
        """Whether chance explains the distance of every point from the power law."""
        residuals = self._fit(self.accuracy[None])[1][0]
        noise = self._fit(self._samples)[1].std(0)
        return bool((np.abs(residuals) <= MAX_DEVIATION * noise + 1e-9).all())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
