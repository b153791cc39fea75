"""Every site under every choice, compressed once."""
