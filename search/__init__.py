"""Which plan next: sensitivity, solver, samplers, study, report."""
