"""The server: asks, sums what the sites report, accounts for it, learns from the sum.

Imports `dppm_model` only; never `client`, `sampler` or `deploy`.
"""
