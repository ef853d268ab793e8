"""Randomized response: from a clipped integer sum to a report, and from the total back to an estimate."""
