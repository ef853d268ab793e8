"""Attacks on what is released: empirical lower bounds on epsilon, to set beside the claim.

An audit can refute a claim, never prove one. All canaries are the auditor's own; no private record
is asked.
"""
