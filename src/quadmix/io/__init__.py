"""Bytes <-> tables: the only room that opens files."""
