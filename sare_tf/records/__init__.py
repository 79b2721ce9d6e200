"""A dataset to TFRecords, and reading them."""
