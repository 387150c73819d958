"""Aligned multiple-choice benchmarks in many languages (MuBench, arXiv 2506.19468) and consistency (MLC)."""
