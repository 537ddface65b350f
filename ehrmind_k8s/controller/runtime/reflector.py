"""List, then watch, for ever: keeps a `Store` equal to what the API server has, and says what changed.

The official client's informer fails on lists of dicts (every custom resource) and spins when a watch ends at once; its Watch keeps silent
about lost events. So: list in pages; watch from the list's version with bookmarks; when the version is too old (410), list again and report
the difference; a line that was silent for 90 s is dead; every failure waits longer than the one before, up to 5 s, with jitter.
"""

import random
import threading
import time
from collections.abc import Callable, Hashable

from ehrmind_k8s import logs
from ehrmind_k8s.controller.runtime.client import Client, Watch
from ehrmind_k8s.controller.runtime.store import Entry, Name, Store
from ehrmind_k8s.kubeapi import ApiError, Gone, NotFound, Resource, Unavailable

WATCH_S = (240, 300)  # a watch ends by itself after a time between these, so that thousands of them never end together
SILENCE_S = 90
BACKOFF_S = (0.2, 5.0)
TOLD = (0, 1, 5, *range(20, 100_000, 100))  # which failures in a row are worth a line in the log
ALIVE_S = 1.0  # a watch that lived shorter counts as failed, however politely it ended


class Reflector:
    """One kind of object in one namespace, or in all of them."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        store: Store,
        changed: Callable[[frozenset[Hashable]], None],
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        silence_s: float = SILENCE_S,
    ) -> None:
        """`changed` hears, from this reflector's thread, the store's keys of what came, changed or went."""
        self.client, self.resource, self.store, self.changed = client, resource, store, changed
        self.namespace, self._selectors, self._silence_s = namespace, {"labels": labels, "fields": fields}, silence_s
        self.synced = threading.Event()
        self.failure: ApiError | None = None  # of the last try; None while it works
        self.denied = False  # what the server last said: that this kind may not be seen here, or is not there. An outage says nothing
        self.lists = self.watches = 0
        self._heard = time.monotonic()
        self._stop = threading.Event()
        self._watch: Watch | None = None
        self._version = ""
        self._thread = threading.Thread(target=self._run, name=f"reflect-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the thread; returns when it has ended or the time is over."""
        self._stop.set()
        if watch := self._watch:
            watch.stop()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def ended(self) -> bool:
        """Whether its thread has ended without having been told to."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stop.is_set()

    @property
    def silent_s(self) -> float:
        """Seconds since the server last said anything: an event, a bookmark, a list."""
        return time.monotonic() - self._heard

    def _run(self) -> None:
        tries = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._follow()
                self.failure = None
            except Gone as error:
                self._version, self.failure = "", error
            except NotFound as error:
                # The kind has gone from the server, and with it all objects.
                self._version, self.failure = "", error
                self.changed(self.store.replace({}, ""))
            except ApiError as error:
                self.failure = error
            except Exception as error:  # whatever it is: without this thread the operator would be blind for this kind
                self._version, self.failure = "", Unavailable(0, type(error).__name__, "the reflector failed")
            if self.failure is None or self.failure.status in (403, 404):
                self.denied = self.failure is not None
            lived = time.monotonic() - began
            tries = 0 if lived > ALIVE_S else tries + 1
            if self.failure and tries in TOLD and not self._stop.is_set():
                self._tell(self.failure)
            if tries:
                wait = max(self._pause(tries), (self.failure and self.failure.retry_after_s) or 0.0)
                self._stop.wait(wait)

    def _list(self) -> None:
        entries: dict[Name, Entry] = {}
        version = ""
        for objects, version in self.client.pages(self.resource, self.namespace, **self._selectors):  # noqa: B007 (the last one counts)
            entries.update(self.store.packed(o) for o in objects)
            self._heard = time.monotonic()
        self.lists += 1
        touched = self.store.replace(entries, version)
        self._version = version
        self.failure, self.denied = None, False
        self.synced.set()
        if touched:
            self.changed(touched)

    def _follow(self) -> None:
        seconds = random.randint(*WATCH_S)
        watch = self.client.watch(self.resource, self.namespace, self._version, timeout_s=seconds, read_timeout_s=self._silence_s, **self._selectors)
        self.watches += 1
        self._watch, self.failure, self.denied = watch, None, False
        try:
            for kind, obj in () if self._stop.is_set() else watch:
                self._heard = time.monotonic()
                self._take(kind, obj)
                if self._stop.is_set():
                    return
            self._heard = time.monotonic()
        except Unavailable:
            if self._stop.is_set():
                return
            raise
        finally:
            self._watch = None
            watch.close()

    def _take(self, kind: str, obj: dict[str, object]) -> None:
        version = obj["metadata"]["resourceVersion"]  # type: ignore[index]
        if kind == "BOOKMARK":
            self.store.advance(version)
        elif keys := (self.store.drop if kind == "DELETED" else self.store.put)(obj):
            self.changed(keys)
        self._version = version

    def _pause(self, tries: int) -> float:
        first, longest = BACKOFF_S
        return random.uniform(0.5, 1.0) * min(longest, first * 2.0 ** min(tries - 1, 16))

    def _tell(self, error: ApiError) -> None:
        logs.event("watch_failed", kind=self.resource.kind, namespace=self.namespace or "*", status=error.status, reason=error.reason)
