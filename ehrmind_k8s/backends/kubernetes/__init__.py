"""Runs in a cluster: a document becomes an EHRMindRun object, the operator does the rest, and everything people ask is read from the API."""
