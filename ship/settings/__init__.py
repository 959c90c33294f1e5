"""Settings of tuning, search and presets, checked as a whole. Loads without torch."""
