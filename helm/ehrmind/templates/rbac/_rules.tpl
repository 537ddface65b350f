{{/* What the operator may do in a namespace with runs. Who uses which verb: tests/unit/packaging/test_rbac.py, docs/security.md.
No secrets, no pods/log, no pods/exec, no wildcards. */}}
{{- define "ehrmind.runRules" -}}
# The run itself; it goes when its policy.ttl_s is over.
- apiGroups: [ehrmind.dev]
  resources: [ehrmindruns]
  verbs: [list, watch, delete]
- apiGroups: [ehrmind.dev]
  resources: [ehrmindruns/status]
  verbs: [patch]
# Children name their run in a blocking owner reference; clusters with OwnerReferencesPermissionEnforcement ask for this right then.
- apiGroups: [ehrmind.dev]
  resources: [ehrmindruns/finalizers]
  verbs: [update]
# Made once and never changed: stages.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs, trainingruntimes]
  verbs: [get, list, watch, create, delete]
# The document that a run's pods read; it goes with the run.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create]
# Server-side applied, so that what others change in them comes back: rollout servers and what is around them.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Who of a run may talk to whom; they go with the run.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# How stages are doing, and why a queued one waits.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Whether somebody still follows a run that is to end with its follower.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* What it may do in its own namespace. */}}
{{- define "ehrmind.ownRules" -}}
# Who leads. A name cannot limit `create`.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [ehrmind-operator]
  verbs: [get, update]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [ehrmind-profiles]
  verbs: [list, watch]
{{- end }}
