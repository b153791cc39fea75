"""The last comparison, on fresh texts."""
