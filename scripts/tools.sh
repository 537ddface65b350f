#!/usr/bin/env bash
# Build the servers that integration tests start (a real S3 server) from their Go modules, once, into a cache outside the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
