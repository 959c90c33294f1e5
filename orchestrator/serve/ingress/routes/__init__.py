"""The routes of the HTTP interface, one concept a file, each made of a ``Front``; ``app`` has their paths."""
