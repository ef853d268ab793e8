"""A real deployment: a server's folder, a site's folder, and the files that operators exchange."""
