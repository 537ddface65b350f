"""How the operator talks to the API server: client, watch, queue, lease, probes. Knows nothing of runs."""
