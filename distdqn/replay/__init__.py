"""Remembers transitions: storage, sampling, and what both take in memory."""
