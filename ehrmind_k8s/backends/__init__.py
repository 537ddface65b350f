"""Places where a run can execute, one module each."""
