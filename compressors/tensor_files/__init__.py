"""Tensors on disk: memory-mapped, with digests, named by content."""
