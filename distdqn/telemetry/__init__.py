"""What the parts of a run report: counters, histograms, rates, time spent."""
