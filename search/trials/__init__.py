"""The race of plans and its log."""
