"""The deterministic schedule over the same parts, in one process or on Ray."""
