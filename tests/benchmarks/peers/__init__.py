"""Other ways to private images, on the same records, the same evaluation and the same epsilon.

Each peer is our own short implementation from its paper, and is honest about whom its users trust
and what its epsilon protects. ``python -m tests.benchmarks.peers --help`` trains and judges them.
"""
