"""What a choice does to a layer: the methods, the sites of a model, the bank, and models assembled from it."""
