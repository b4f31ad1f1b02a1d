"""Scores of a run: zero-shot, retrieval and linear probes, each beside chance."""
