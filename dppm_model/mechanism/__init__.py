"""Randomized response: from a clipped sum to a report, and from the total to an estimate."""
