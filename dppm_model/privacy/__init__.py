"""Gaussian-DP numerics, the accountant and the ledger."""
