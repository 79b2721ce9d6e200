"""Published networks of others: files to an imported network, and back."""
