//go:build tools

// Package tools pins the operator that runs PyTorchJobs; go.sum holds its checksums.
package tools

import _ "github.com/kubeflow/training-operator/cmd/training-operator.v1"
