"""Object stores behind one interface: `storage.open(uri)`. One file per URI scheme; nobody else knows schemes."""

from ehrmind_k8s.storage.base import ObjectInfo, ObjectStore, join, open, path

__all__ = ["ObjectInfo", "ObjectStore", "join", "open", "path"]
