"""The server's half of each mechanism: its options, the search of its parameters, its audit."""
