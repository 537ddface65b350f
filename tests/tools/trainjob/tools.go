//go:build tools

// Package tools pins the operators that run TrainJobs; go.sum holds its checksums.
package tools

import (
	_ "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager"
	_ "sigs.k8s.io/jobset"
)
