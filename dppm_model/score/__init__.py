"""The score model: a closed-form mixture per class, and a small network for what it misses.

``query`` says what a record answers and what the server does with the sum; ``moments`` holds the
phases of the closed form, ``gradient`` those of the network; ``model`` is what has been released.
"""
