"""Room annotate."""
