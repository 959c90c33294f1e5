import ship.vit  # noqa: F401 - timm's import order, before a test module imports it
