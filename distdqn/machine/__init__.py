"""What this machine and this process are doing: threads, cores, memory, priority."""
