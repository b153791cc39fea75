"""The checkpoint as it is read."""
