"""Queries that follow each other: the places of a sequence, together."""
