"""The server: asks the sites, sums their reports, accounts for them, and learns from the sum.

Imports `dppm_model` only; never `client`, `sampler` or `deploy`.
"""
