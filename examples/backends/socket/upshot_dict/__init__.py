"""An upshot backend that keeps results in the dict of a small server."""
