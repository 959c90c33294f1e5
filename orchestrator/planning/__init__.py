"""The plan of a run: task specs, estimates of time and storage, deadlines and checks of the data."""
