"""Run a function over shards or trials, here or in worker processes; no other room knows where work runs."""
