"""What a run would do: the task specs, the plan, estimates of time and cost, checks of the data."""
