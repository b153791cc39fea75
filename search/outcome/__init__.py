"""What a study found, and the files that say so."""
