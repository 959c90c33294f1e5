"""The console: web pages over registry, store, audit log and endpoint, for people of a plant."""
