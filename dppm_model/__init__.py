"""Everything that sites and server must agree on: plan, mechanism, accounting, model, records.

This package knows neither Flower nor Ray. Start reading at ``round.py``.
"""
