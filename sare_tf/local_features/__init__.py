"""Local features of images, and whether they agree on one geometry."""
