"""Data sets: fetched, imported, stored as memory-mapped shards, dealt to sites."""
