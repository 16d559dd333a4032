"""One run on Ray: its parts, where they run, their deaths; what lockstep shares with it."""
