"""Optional bridges from upshot to other software, each with its own extra."""
