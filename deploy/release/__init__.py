"""`dppm release`: a gate between a run and the world, and the page that opens it."""
