"""The `dppm` command, and everything that starts processes: simulation, Flower, Ray.

May import all other packages; none imports it.
"""
