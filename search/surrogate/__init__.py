"""What the trials have taught about losses."""
