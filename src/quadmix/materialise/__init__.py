"""Room materialise."""
