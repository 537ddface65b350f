"""Runs in Kubeflow Pipelines: each stage is a node, and each node an EHRMindRun that it follows.

From outside, by plain REST: a document becomes the parameters of the compiled pipeline.

    backend        submit, status, logs, cancel of runs; pipelines: upload and schedules
    document       parameters of the compiled pipeline;  view: a run as a status;  logs: of its objects in the cluster
    rest           the calls of the API, and what a refusal means
    transport      to an address, or through the API server;  credentials: who we are for a gateway

Inside a node: step (begin or find the run, follow it), stage (its document), outputs (what KFP shows), compare (of a sweep).
"""
