"""The manifest: its model, its loading and checking, and the JSON Schema of it."""
