"""How soon the scheduler runs a process of the network once it has work; asked as the player asks for itself."""

from replay.promptness import SLICE_NS, Promptness, ask_promptness

__all__ = ["SLICE_NS", "Promptness", "ask_promptness"]
