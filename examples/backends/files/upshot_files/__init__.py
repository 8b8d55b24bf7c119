"""An upshot backend that keeps results in a folder of files."""
