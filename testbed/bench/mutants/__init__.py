"""Config mutants whose harm is known by how they are made, each asked as a what-if."""
