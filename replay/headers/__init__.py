"""Records to packet columns: link, tunnel, IP and transport headers. Knows no file format and no flow."""
