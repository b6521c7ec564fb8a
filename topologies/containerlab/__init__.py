"""containerlab files read into labs."""
