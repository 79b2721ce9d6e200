"""Protocols, ground truth, metrics and results per query."""
