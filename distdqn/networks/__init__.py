"""Q-networks and their torsos."""
