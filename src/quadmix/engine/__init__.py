"""Run a function over shards or trials: serially or in local processes; the only room that knows where work runs."""
