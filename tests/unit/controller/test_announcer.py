"""What an event may be: no longer than the API takes."""

import pytest
from kubernetes.client import Configuration

from ehrmind_k8s.controller.announcer import Announcer
from ehrmind_k8s.controller.records import Event
from ehrmind_k8s.controller.runtime.client import Client

RUN = {"metadata": {"name": "demo", "namespace": "ns", "uid": "u"}}


@pytest.mark.parametrize(
    ("text", "note"),
    [("x" * 2000, "x" * 1024), ("x" + "\u00fc" * 600, "x" + "\u00fc" * 511), ("short", "short")],
    ids=["ascii", "letters of two bytes", "short"],
)
def test_a_note_is_cut_by_bytes_and_never_within_a_letter(text: str, note: str) -> None:
    announcer = Announcer(Client(Configuration(host="http://127.0.0.1:1")), "me")
    assert announcer._body(RUN, Event("Normal", "Accepted", text))["note"] == note
