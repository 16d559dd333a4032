"""What a run leaves on disk: its folder, checkpoints, and the encoding of both."""
