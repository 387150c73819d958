"""Room mixing."""
