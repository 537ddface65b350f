"""Clinical tasks, one folder each; `registry` finds them, `base` says what a task is."""
