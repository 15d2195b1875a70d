"""Whether a classifier is as sure as it is right: reliability, expected calibration error, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision.errors import Invalid

BINS = 15
_COLDEST, _HOTTEST = 0.01, 100.0  # beyond them the data ask for no finite temperature


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in bins of equal width, from the least confident to the most."""

    counts: tuple[int, ...]  # pictures in each bin
    confidence: tuple[float, ...]  # their mean confidence; the bin's middle where there are none
    accuracy: tuple[float, ...]  # the share of them that is right; 0 where there are none

    @property
    def ece(self) -> float:
        """The expected calibration error: |accuracy − confidence|, weighed by the pictures in each bin."""
        gaps = (
            count * abs(right - sure)
            for count, right, sure in zip(self.counts, self.accuracy, self.confidence, strict=True)
        )
        return sum(gaps) / sum(self.counts)


def reliability(logits: Tensor, labels: Tensor, *, bins: int = BINS) -> Reliability:
    """Sort predictions by their confidence, the greatest softmax probability, into bins of equal width.

    logits: (n, classes); labels: (n,). Bin m of M holds confidences in ((m−1)/M, m/M]. Guo, Pleiss, Sun &
    Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, eq. 2 and 3; 15 bins as there.
    """
    if bins < 1:
        raise Invalid(f"{bins} bins: give 1 or more")
    sure, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    counts = torch.bincount(place, minlength=bins)
    sums = (torch.zeros(bins, dtype=torch.float64).index_add(0, place, values) for values in (sure, right))
    confidence, accuracy = ((total / counts.clamp(min=1)) for total in sums)
    middle = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    confidence = torch.where(counts > 0, confidence, middle)
    return Reliability(tuple(counts.tolist()), tuple(confidence.tolist()), tuple(accuracy.tolist()))


def remark(temperature: float) -> str:
    """Return what is to be said of a temperature that is no least but an end of its range; "" for others."""
    if temperature >= _HOTTEST:
        return (
            f"{_HOTTEST:g} is the end of the range: on the held-out pictures the network does no better than "
            "chance, so calibrated probabilities are all alike"
        )
    if temperature <= _COLDEST:
        return (
            f"{_COLDEST:g} is the end of the range: the network was right of every held-out picture, too few "
            "to tell how sure it may be"
        )
    return ""


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T > 0 for which softmax(logits / T) gives these labels the least cross-entropy.

    logits: (n, classes) of pictures held out from training; labels: (n,). T above 1 says that the network is
    too sure. It changes no prediction, since it keeps the order of the classes. Guo et al. 2017, section 4.2.
    Departure: not by L-BFGS. In 1/T the loss is convex and its slope E_softmax[z] − z_label rises, so its
    zero is found by halving an interval, to 12 digits. Where the least lies at no finite T (every
    prediction right: 0; none better than chance: infinity) it is 0.01 or 100.
    """
    if not len(labels):
        raise Invalid("a temperature needs pictures that were held out from training: there are none")
    scores = logits.double() - logits.double().amax(1, keepdim=True)
    label = scores.gather(1, labels[:, None])[:, 0]

    def slope(inverse: float) -> float:
        return float(((scores * inverse).softmax(1) * scores).sum(1).sub(label).mean())

    low, high = -math.log(_HOTTEST), -math.log(_COLDEST)  # of log 1/T
    if slope(math.exp(low)) >= 0:
        return _HOTTEST
    if slope(math.exp(high)) <= 0:
        return _COLDEST
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)
