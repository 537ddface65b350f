//go:build tools

// Package tools pins the S3 server of the tests; go.sum holds its checksums.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
