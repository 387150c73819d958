"""QuaDMix: from a pool of scored documents and a token budget to the dataset that trains the best model."""

__version__ = "0.1.0"
