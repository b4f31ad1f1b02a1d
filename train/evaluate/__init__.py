"""Scores of a run beside chance, and what it predicted for every item."""
