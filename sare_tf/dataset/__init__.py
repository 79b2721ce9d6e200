"""What a dataset is, and reading one from disk."""
