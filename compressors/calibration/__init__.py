"""Statistics of the original on calibration texts."""
