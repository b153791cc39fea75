"""Runtimes that a plan can be made for."""
