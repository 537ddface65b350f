"""What a reflector knows: the newest version of every object it watches.

Objects are kept as compressed JSON, not as dicts: five to ten times smaller, so that thousands of finished runs cost megabytes, and every
reader gets a copy of its own that it cannot spoil for others.
"""

import json
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `keys`: what it is found by; `tag`: what it is counted by."""

    version: int
    uid: str
    deleting: bool
    keys: frozenset[Hashable]
    tag: str
    text: bytes

    def object(self) -> Object:
        """A fresh copy of the object."""
        found: Object = json.loads(zlib.decompress(self.text))
        return found


class Store:
    """Objects by name and by key. All methods are safe from any thread."""

    def __init__(
        self, prune: Callable[[Object], Object], keys: Callable[[Object], Iterable[Hashable]], tag: Callable[[Object], str] = lambda _: ""
    ) -> None:
        """`prune` says what of an object is kept, `keys` what it is found by, `tag` what it is counted by."""
        self._prune, self._keys, self._tag = prune, keys, tag
        self._lock = threading.Lock()
        self._entries: dict[Name, Entry] = {}
        self._by_key: dict[Hashable, set[Name]] = defaultdict(set)
        self._version = 0

    @property
    def version(self) -> int:
        """The newest resource version heard of: everything written up to it is in here."""
        return self._version

    def advance(self, version: str) -> None:
        """The server says that nothing older than `version` is missing (bookmark, end of a list)."""
        self._version = max(self._version, number(version))

    def put(self, obj: Object) -> frozenset[Hashable]:
        """Take in an object; returns the keys of it, old and new. None when it is older than what is known."""
        entry, name = self._entry(obj), name_of(obj)
        with self._lock:
            old = self._entries.get(name)
            if old and old.version > entry.version:
                return frozenset()
            self._set(name, entry)
            self._version = max(self._version, entry.version)
        return entry.keys | (old.keys if old else frozenset())

    def drop(self, obj: Object) -> frozenset[Hashable]:
        """Forget an object that the server deleted; returns its keys."""
        name = name_of(obj)
        with self._lock:
            old = self._entries.get(name)
            self._set(name, None)
            self._version = max(self._version, number(obj["metadata"].get("resourceVersion", "")))
        return (old.keys if old else frozenset()) | frozenset(self._keys(obj))

    def packed(self, obj: Object) -> tuple[Name, Entry]:
        """An object as `replace` wants it: so that a long list is never in memory as dicts."""
        return name_of(obj), self._entry(obj)

    def replace(self, entries: dict[Name, Entry], version: str) -> frozenset[Hashable]:
        """These are all objects there are, as of `version`; returns the keys of those that came, went or changed."""
        touched: set[Hashable] = set()
        with self._lock:
            for name in self._entries.keys() | entries.keys():
                old, new = self._entries.get(name), entries.get(name)
                if not (old and new and old.version == new.version and old.uid == new.uid):
                    touched |= (old.keys if old else frozenset()) | (new.keys if new else frozenset())
                    self._set(name, new)
            self._version = max(self._version, number(version))
        return frozenset(touched)

    def get(self, namespace: str, name: str) -> Object | None:
        """One object."""
        entry = self.entry(namespace, name)
        return entry.object() if entry else None

    def entry(self, namespace: str, name: str) -> Entry | None:
        """What is known of one object without decoding it."""
        return self._entries.get((namespace, name))

    def select(self, key: Hashable) -> list[Object]:
        """The objects found by `key`, in order of their names."""
        with self._lock:
            found = [self._entries[n] for n in sorted(self._by_key.get(key, ()))]
        return [e.object() for e in found]

    def names(self) -> list[Name]:
        """Names of all objects."""
        with self._lock:
            return list(self._entries)

    def count(self) -> Counter[str]:
        """How many objects there are by tag."""
        with self._lock:
            return Counter(e.tag for e in self._entries.values())

    def _entry(self, obj: Object) -> Entry:
        meta = obj["metadata"]
        kept = self._prune(obj)
        text = zlib.compress(json.dumps(kept, separators=(",", ":")).encode(), 1)
        version = number(meta.get("resourceVersion", ""))
        return Entry(version, meta.get("uid", ""), bool(meta.get("deletionTimestamp")), frozenset(self._keys(obj)), self._tag(obj), text)

    def _set(self, name: Name, entry: Entry | None) -> None:
        old = self._entries.pop(name, None)
        for key in old.keys if old else ():
            self._by_key[key].discard(name)
            if not self._by_key[key]:
                del self._by_key[key]
        if entry:
            self._entries[name] = entry
            for key in entry.keys:
                self._by_key[key].add(name)


def name_of(obj: Object) -> Name:
    """Namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def number(version: str) -> int:
    """A resource version as a number. Kubernetes promises since 1.35 that they can be compared so; etcd's always could. 0 for anything else."""
    return int(version) if version.isdigit() else 0
