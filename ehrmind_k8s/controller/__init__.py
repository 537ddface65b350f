"""The operator: one EHRMindRun object becomes the pods of a run, carried to its end."""
