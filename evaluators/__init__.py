"""What a plan costs and is worth: size, latency, quality; each number through one door."""
