"""What `make bench-check` is made of: parts, references, the comparison.

items (ours, its limit, its reference) --turns--> ratios --record--> verdicts
"""
