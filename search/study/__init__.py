"""From a study file to a plan."""
