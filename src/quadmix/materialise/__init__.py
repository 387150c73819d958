"""θ* -> dataset on disk: the table of what was selected and why, the shuffled shards, card, checks."""
