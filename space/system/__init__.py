"""Files, locks and processes, without knowledge of plans."""
