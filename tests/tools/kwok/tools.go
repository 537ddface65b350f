//go:build tools

// Package tools pins the simulator of nodes and pods; go.sum holds its checksums.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
