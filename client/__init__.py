"""A data-holding site: the only kind of answer that leaves it, and its Flower ClientApp.

Imports `dppm_model` only; never `server`, `sampler` or `deploy`.
"""
