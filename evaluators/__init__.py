"""Evaluators of a plan: size, latency and quality. Each measured value passes one finiteness check."""
