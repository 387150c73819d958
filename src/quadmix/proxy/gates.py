"""Gates of the feed-forward layers by the domain of a token's document (POSO, arXiv 2108.04690, Eq. 11).

A research flag, `proxy.model.gates: domain`. In layer l of model k the hidden features of a token in domain m
are multiplied by 2 sigmoid(W2 relu(W1 c_m + b1) + b2), c_m a trained vector; all tokens of a document have
one factor. Row 0 is the unknown domain, the only one that target texts have. A share of the documents is of
an unknown domain in training, so that this row is trained, too.

The last model has no such gates, and they take away what a search for mixtures measures, how domains disturb
each other. So ask whether they rank θ as larger plain models do; their loss alone says nothing.

Widths and initialisation are those of `quadmix.poso`; section 4.5 of the paper says two layers and a sigmoid.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from quadmix.recipe import ModelSection

CODE, HIDDEN = 16, 32
_STD = 0.5  # of W2, as in quadmix.poso


def gate_parameters(model: ModelSection, domains: int) -> int:
    """Return the parameters that the gates of one model add, 0 without gates."""
    if model.gates == "none":
        return 0
    return (1 + domains) * CODE + model.layers * ((CODE + 1) * HIDDEN + (HIDDEN + 1) * model.mlp)


def draw_gates(model: ModelSection, domains: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return codes (1 + domains, CODE), gate_in (L, CODE + 1, HIDDEN), gate_out (L, HIDDEN + 1, mlp); the
    last row of a matrix is its bias. {} without gates."""
    if model.gates == "none":
        return {}
    reach = CODE**-0.5
    first = torch.rand(model.layers, CODE + 1, HIDDEN, generator=generator) * 2 * reach - reach
    second = torch.randn(model.layers, HIDDEN + 1, model.mlp, generator=generator) * _STD
    second[:, -1] = 0.0
    codes = torch.randn(1 + domains, CODE, generator=generator)
    return {"codes": codes, "gate_in": first, "gate_out": second}


def factors(codes: Tensor, gate_in: Tensor, gate_out: Tensor) -> Tensor:
    """Return (K, L, 1 + domains, mlp) float32 in (0, 2) of codes (K, 1 + domains, CODE) and both layers with
    their leading axes (K, L)."""
    hidden = torch.relu(_with_one(codes[:, None]) @ gate_in)
    return 2.0 * torch.sigmoid(_with_one(hidden) @ gate_out)


def gated(hidden: Tensor, table: Tensor, domains: Tensor | None) -> Tensor:
    """Return hidden (K, N, mlp) times the factors of each token's domain.

    table: (K, 1 + M, mlp). domains: (K, N) int64 in 0..M; None: unknown for all.
    """
    table = table.to(hidden.dtype)
    if domains is None:
        return hidden * table[:, :1]
    models, rows, width = table.shape
    shift = torch.arange(models, device=table.device)[:, None] * rows
    return hidden * F.embedding(domains + shift, table.reshape(models * rows, width))


def joined(tokens: NDArray[np.integer], domains: NDArray[np.integer], vocab: int) -> NDArray[np.int64]:
    """Return tokens and domains, both (..., T + 1), as one array of numbers domain * vocab + token."""
    return domains.astype(np.int64) * vocab + tokens


def parted(batch: Tensor, vocab: int, model: ModelSection) -> tuple[Tensor, Tensor | None]:
    """Return tokens and domains of a batch (..., T + 1) as `joined` made it; no domains without gates."""
    if model.gates == "none":
        return batch, None
    return batch % vocab, batch // vocab


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
