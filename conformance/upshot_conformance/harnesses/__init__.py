"""The harnesses of the built-in services, registered as a third party's would be."""
