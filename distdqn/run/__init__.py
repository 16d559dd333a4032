"""One asynchronous run on Ray: its parts, where they run, and their deaths."""
