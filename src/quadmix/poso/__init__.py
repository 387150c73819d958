"""Gated group-specialised modules (POSO, arXiv 2108.04690), usable in any torch model.

    code = PersonalizationCode(categorical={"language": 62}, buckets={"labels": log2_edges()})
    head = PosoMLP(768, [256, 64], 1, pc_dim=code.pc_dim)
    scores = head(vectors, code({"language": languages, "labels": labels}))

The room needs torch and nothing else.
"""

from quadmix.poso.attention import PosoMultiheadAttention
from quadmix.poso.code import PersonalizationCode, log2_edges
from quadmix.poso.experts import MMoE, PosoMMoE
from quadmix.poso.gate import Gate, GateConfig
from quadmix.poso.general import Poso
from quadmix.poso.linear import PosoLinear
from quadmix.poso.masking import masking_sensitivity
from quadmix.poso.mlp import PosoMLP

__all__ = [
    "Gate",
    "GateConfig",
    "MMoE",
    "PersonalizationCode",
    "Poso",
    "PosoLinear",
    "PosoMLP",
    "PosoMMoE",
    "PosoMultiheadAttention",
    "log2_edges",
    "masking_sensitivity",
]
