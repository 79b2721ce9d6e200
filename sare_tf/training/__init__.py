"""Training: data, mining, an epoch, the run folder, TensorBoard."""
