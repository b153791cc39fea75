"""Compression of layers: methods, site discovery, the bank of compressed sites, and models assembled from it."""
