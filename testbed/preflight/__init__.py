"""Before any long replay: what the network does with one flow of every class, and what the change lets in."""
