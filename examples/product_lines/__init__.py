"""The main job on real pictures: tune nine tasks, register them, serve them from one backbone, ask."""
