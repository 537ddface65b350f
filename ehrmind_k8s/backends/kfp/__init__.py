"""Runs in Kubeflow Pipelines: each stage is a node, and each node an EHRMindRun that it follows."""
