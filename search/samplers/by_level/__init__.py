"""What the samplers share that think in levels of bytes."""
