"""The rendered city."""
