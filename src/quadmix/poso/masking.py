"""Does a model use its code? The masking test of POSO (arXiv 2108.04690, Fig. 1b) as one number."""

from torch import Tensor

from quadmix.errors import InputError


def masking_sensitivity(shown: Tensor, masked: Tensor) -> float:
    """Return S = E|h(x) - h(x with the code masked)|_1 / E|h(x)|_1, 0 = the code changes nothing.

    shown, masked: activations of one shape near the end of a network, of the same rows with their code and
    with the unknown one. Take rows of the minority alone: masking a flag that is 0 for 95 % of all rows does
    nothing to them.
    """
    if shown.shape != masked.shape or not shown.numel():
        raise InputError(
            f"activations have shapes {tuple(shown.shape)} and {tuple(masked.shape)}, expected one shape, "
            "with at least one row"
        )
    whole = shown.double().abs().sum().item()
    return (shown.double() - masked.double()).abs().sum().item() / whole if whole else 0.0
