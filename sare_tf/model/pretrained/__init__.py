"""Files of trained weights: containers, and arrays by name."""
