"""Pages of the console. Each module has a ``router``, which ``app`` includes; see ``rendering.add_page``."""
