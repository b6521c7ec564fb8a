"""What a node is made of: one file a kind, found by entry point."""
