"""The `dppm` command and everything that starts something: simulation, Flower, Ray.

May import all other packages; nothing imports it.
"""
