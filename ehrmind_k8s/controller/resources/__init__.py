"""Pure builders: from a run, a profile and a step to the objects that a cluster needs."""
