"""What a study will take, and what is refused before it begins."""
