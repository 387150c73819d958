"""Gated group-specialised modules (POSO, arXiv 2108.04690), usable in any torch model."""
