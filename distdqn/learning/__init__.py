"""Learns from batches: one update, its compilation, and what feeds it."""
