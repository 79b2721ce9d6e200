"""Neighbours of neighbours: what landmark retrieval does after search."""
