"""The shadow testbed: runs a network change against real flows before production does."""

__version__ = "0.1.0"
