"""Images from a score model: Hamiltonian Monte Carlo over noise levels, in parallel on Ray.

Imports `dppm_model` only. `pool.py` is the one file that knows Ray.
"""
