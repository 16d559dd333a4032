"""Plays greedy episodes, counts what they return, and records them."""
