"""This machine as a place to run: a foreground supervisor, one subprocess per stage, rollout servers beside it."""
