"""Thin commands: parse, one library call, print. Results on stdout, logs and progress on stderr."""
