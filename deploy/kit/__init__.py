"""A real deployment: a server's folder, a site's folder, and what their operators exchange."""
