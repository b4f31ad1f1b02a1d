"""Fetch pictures from the web: fast, safe for the machine that does it, polite to the others."""
