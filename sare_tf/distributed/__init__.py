"""Strategies of tf.distribute, workers, and Apache Beam."""
