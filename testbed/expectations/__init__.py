"""What the author of a change says that it will do: declared, held against what was seen, and told."""
