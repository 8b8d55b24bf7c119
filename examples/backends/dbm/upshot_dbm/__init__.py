"""An upshot backend that keeps results in databases of the module `dbm`."""
