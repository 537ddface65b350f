"""Print the object of the store URI in the first argument, read with this pod's own settings."""

import sys

from ehrmind_k8s import storage

folder, _, name = sys.argv[1].rpartition("/")
print(storage.open(folder).get_bytes(name).decode())
