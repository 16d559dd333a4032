"""Thin Ray shells: waiting, windows, prefetch, restarts; no formula in them."""
