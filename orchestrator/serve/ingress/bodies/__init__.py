"""Request bodies: read within limits and checked before any image is decoded."""
