"""The one loss of a pairwise rater: binary cross-entropy of sigmoid(s_a - s_b) against p, weighed by pair.

MuRating (arXiv 2507.01785) has two losses, of labelled pairs and of parallel pairs:

    L_pairs = - p log sigmoid(d) - (1 - p) log sigmoid(-d)          d = s_a - s_b
    L_par   = - log sigmoid(d) - log sigmoid(-d) = 2 log(2 cosh(d / 2))

L_par is twice L_pairs at p = 1/2, so a parallel pair is an ordinary pair with p = 1/2 and weight 2 lambda.
Its least value is 2 ln 2, at d = 0, which is taken off where it is shown.
"""

from typing import TYPE_CHECKING

import numpy as np

from quadmix.types import Floats

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PARALLEL = 2.0 * np.log(2.0)


def pair_loss(difference: Floats, p: Floats, weight: Floats) -> float:
    """Return the weighted mean loss of pairs.

    difference: (P,) float64 s_a - s_b, finite; exact to float64 where exp overflows, too. p: (P,) in [0, 1],
    the probability that a is better. weight: (P,), a sum above 0.
    """
    return float((weight * pair_losses(difference, p)).sum() / weight.sum())


def pair_losses(difference: Floats, p: Floats) -> Floats:
    """Return (P,) the loss of each pair, before weights."""
    certain = (1.0 - p) * np.maximum(difference, 0.0) + p * np.maximum(-difference, 0.0)
    return certain + np.log1p(np.exp(-np.abs(difference)))


def pair_gradient(difference: Floats, p: Floats, weight: Floats) -> Floats:
    """Return (P,) the derivative of `pair_loss` by each difference: w (sigmoid(d) - p) / sum of w."""
    from scipy.special import expit

    return weight * (expit(difference) - p) / weight.sum()


def parallel_excess(difference: Floats) -> Floats:
    """Return (P,) L_par(d) - 2 ln 2 >= 0: how far each parallel pair is from equal scores."""
    size = np.abs(difference)
    return size + 2.0 * np.log1p(np.exp(-size)) - LEAST_PARALLEL


def torch_pair_loss(difference: "Tensor", p: "Tensor", weight: "Tensor") -> "Tensor":
    """Return `pair_loss` as a tensor with a gradient; all three (P,) of one floating dtype."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    losses = binary_cross_entropy_with_logits(difference, p, reduction="none")
    return (weight * losses).sum() / weight.sum()
