"""Models that score, label or embed text, by cards; one module per architecture family."""
