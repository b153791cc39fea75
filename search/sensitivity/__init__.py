"""How much the loss grows by each choice at each site."""
