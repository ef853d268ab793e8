"""`dppm export`: synthetic images in the formats of others, each marked with its origin."""
