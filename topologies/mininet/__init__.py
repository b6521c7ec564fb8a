"""Mininet files and its own topologies read into labs; the file itself runs in a child process."""
