"""Pages for a browser: the report of a run, and the live page of one that is being trained."""
