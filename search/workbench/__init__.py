"""Model, texts and bank, ready to measure plans."""
