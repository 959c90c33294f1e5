"""Request bodies: what is read, bounded and checked before anything is decoded."""
