"""What a reflector knows of the cluster."""

from typing import Any

from ehrmind_k8s.controller.runtime.store import Store


def obj(name: str, version: int, key: str = "k", uid: str = "u", **more: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version), "uid": uid, "labels": {"key": key}, **more}}


def make() -> Store:
    return Store(lambda o: o, lambda o: [o["metadata"]["labels"]["key"]], lambda o: o["metadata"]["uid"])


def replace(store: Store, objects: list[dict[str, Any]], version: str) -> frozenset[Any]:
    return store.replace(dict(map(store.packed, objects)), version)


def test_objects_are_found_by_name_and_key_and_nobody_can_spoil_them() -> None:
    store = make()
    store.put(obj("b", 1))
    store.put(obj("a", 2))
    store.select("k")[0]["metadata"]["name"] = "spoilt"
    assert [o["metadata"]["name"] for o in store.select("k")] == ["a", "b"]
    assert store.get("ns", "a") == obj("a", 2)
    assert store.get("other", "a") is None


def test_an_object_that_changes_its_key_wakes_both() -> None:
    store = make()
    store.put(obj("a", 1, key="old"))
    assert store.put(obj("a", 2, key="new")) == {"old", "new"}
    assert (store.select("old"), len(store.select("new"))) == ([], 1)


def test_an_older_version_of_an_object_changes_nothing() -> None:
    store = make()
    store.put(obj("a", 5, key="new"))
    assert store.put(obj("a", 4, key="old")) == frozenset()
    assert len(store.select("new")) == 1


def test_a_new_list_reports_what_came_went_and_changed_and_nothing_else() -> None:
    store = make()
    for name in ("same", "changed", "gone"):
        store.put(obj(name, 1, key=name))
    touched = replace(store, [obj("same", 1, key="same"), obj("changed", 7, key="changed"), obj("new", 6, key="new")], "9")
    assert touched == {"changed", "gone", "new"}
    assert store.get("ns", "gone") is None
    assert store.version == 9


def test_an_object_made_again_under_its_name_counts_as_changed() -> None:
    store = make()
    store.put(obj("a", 1, uid="first"))
    assert replace(store, [obj("a", 1, uid="second")], "9") == {"k"}


def test_the_version_grows_with_events_and_bookmarks_only() -> None:
    store = make()
    store.put(obj("a", 3))
    store.advance("10")
    store.advance("4")
    assert store.version == 10
    store.drop(obj("a", 12))
    assert (store.version, store.get("ns", "a")) == (12, None)


def test_objects_are_counted_by_their_tag() -> None:
    store = make()
    for name, uid in (("a", "x"), ("b", "x"), ("c", "y")):
        store.put(obj(name, 1, uid=uid))
    assert store.count() == {"x": 2, "y": 1}
    store.put(obj("a", 2, uid="y", deletionTimestamp="2026-01-01T00:00:00Z"))
    assert store.count() == {"x": 1, "y": 2}
    entry = store.entry("ns", "a")
    assert entry is not None and entry.deleting
