"""Exact and approximate neighbours, and the index on disk."""
