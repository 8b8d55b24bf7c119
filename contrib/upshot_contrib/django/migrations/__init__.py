"""How the table of results came to be."""
