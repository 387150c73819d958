"""Train a quality rater for many languages from pairwise votes (MuRating, arXiv 2507.01785)."""
