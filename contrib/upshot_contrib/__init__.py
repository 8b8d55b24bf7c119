"""Optional bridges from upshot to other software. The first ones come with their own issues."""
