"""The watch for drift of what is served."""
