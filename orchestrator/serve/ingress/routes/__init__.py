"""Routes of the HTTP interface; each module has a ``router``, and ``app`` puts them together."""
