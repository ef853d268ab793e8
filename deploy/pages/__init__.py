"""What people look at in a browser: the report of a run, and the live page of one in work."""
