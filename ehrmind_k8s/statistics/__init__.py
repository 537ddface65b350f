"""Statistics over plain arrays; they know no task, no model and no store."""
