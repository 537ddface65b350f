"""The ledger's sums agree and no lineage trains an issue twice, however attempts die."""

import json
import random
from collections import Counter
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.training import ledger
from ehrmind_k8s.training.ledger import Begin, Entry, Ledger, audit_entries, is_live

STEPS, PROMPTS, EVERY = 9, 2, 3


def history(seed: int, kills: int) -> tuple[list[Entry], list[Begin]]:
    """What the ledger holds after attempts that died at random points, checkpoints landing late or never, and one that finished."""
    random_ = random.Random(seed)
    entries: dict[tuple[int, int, int], Entry] = {}
    begins: list[Begin] = []
    saved = [0]
    for attempt in range(1, kills + 2):
        after = random_.choice([s for s in saved if s >= saved[-1] - EVERY]) if attempt <= kills else saved[-1]
        saved = [s for s in saved if s <= after]
        begins.append(Begin(attempt, after))
        last = random_.randint(after, STEPS) if attempt <= kills else STEPS
        for step in range(after + 1, last + 1):
            dies = step == last and attempt <= kills
            state = random_.choice(["issued", "failed", "trained"]) if dies else random_.choice(["trained", "trained", "dropped"])
            for i in range(PROMPTS):
                entries[attempt, step, i] = Entry(0, f"p{step}.{i}", step, attempt, state, 8 if state == "trained" else 0)
            if step % EVERY == 0 and state != "issued" and state != "failed" and not (dies and random_.random() < 0.5):
                saved.append(step)
    return list(entries.values()), begins


@given(st.integers(0, 10**6), st.integers(0, 5))
def test_sums_agree_after_any_kills(seed: int, kills: int) -> None:
    entries, begins = history(seed, kills)
    sums = audit_entries(entries, begins)
    assert sums["issued"] == len(entries) == sums["trained"] + sums["dropped"] + sums["failed"] + sums["voided"] + sums["open"]
    assert sums["open"] == 0
    assert sums["trained"] <= sums["scored"] <= sums["issued"]


@given(st.integers(0, 10**6), st.integers(0, 5))
def test_the_surviving_lineage_trains_every_issue_of_a_finished_run_at_most_once(seed: int, kills: int) -> None:
    entries, begins = history(seed, kills)
    live = [e for e in entries if is_live(e.step, e.attempt, begins) and e.state in ("trained", "dropped")]
    assert Counter((e.epoch, e.prompt_id) for e in live) == {(0, f"p{step}.{i}"): 1 for step in range(1, STEPS + 1) for i in range(PROMPTS)}


def test_a_killed_step_stays_open_until_the_next_attempt_voids_it(store: ObjectStore, claim: Claim) -> None:
    book = Ledger(claim)
    book.begin(0)
    book.settle(book.issue(1, [(0, "a"), (0, "b")]), [8, 0])
    book.issue(2, [(0, "c"), (0, "d")])
    assert ledger.audit(store) == {"issued": 4, "scored": 1, "trained": 1, "dropped": 1, "failed": 0, "voided": 0, "open": 2}
    second = Claim(store, 2)
    second.take()
    assert Ledger(second).begin(1).voided == 2
    assert ledger.audit(store) == {"issued": 4, "scored": 1, "trained": 1, "dropped": 1, "failed": 0, "voided": 2, "open": 0}


def test_a_takeover_from_the_start_voids_all_but_what_failed(store: ObjectStore, claim: Claim) -> None:
    book = Ledger(claim)
    book.begin(0)
    book.settle(book.issue(1, [(0, "a")]), [8])
    book.fail(book.issue(2, [(0, "b")]))
    second = Claim(store, 2)
    second.take()
    Ledger(second).begin(0)
    assert ledger.audit(store) == {"issued": 2, "scored": 1, "trained": 0, "dropped": 0, "failed": 1, "voided": 1, "open": 0}


def test_what_a_fenced_attempt_writes_late_is_voided(store: ObjectStore, claim: Claim) -> None:
    Ledger(claim).begin(0)
    late = Entry(0, "a", 1, 1, "trained", 8)
    second = Claim(store, 2)
    second.take()
    Ledger(second).begin(0)
    store.put_bytes(artifacts.ledger_key(1, 1), json.dumps(asdict(late)).encode())
    assert ledger.audit(store)["voided"] == 1
