"""A network drawn as one HTML file."""
