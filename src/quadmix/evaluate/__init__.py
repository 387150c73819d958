"""Is it better? Baselines under the same budget, a larger model, paired statistics."""
