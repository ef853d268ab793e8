"""A data-holding site: what may leave it, and the Flower ClientApp that carries it.

Imports `dppm_model` only; never `server`, `sampler` or `deploy`.
"""
