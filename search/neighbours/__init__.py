"""Plans near a plan."""
