"""Models assembled from the bank."""
