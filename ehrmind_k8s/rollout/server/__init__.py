"""The rollout server: vLLM with plug-ins of ours. Start it with `python -m ehrmind_k8s.rollout.server`."""
