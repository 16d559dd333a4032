"""Counts a run's env steps, deals them out, and answers how the run is."""
