"""The console command ``ship``: parses, calls, prints. Decides nothing."""
