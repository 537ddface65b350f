//go:build tools

// Package tools pins the package manager that installs our chart; go.sum holds its checksums.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
