"""What became of every prompt. An *issue* is (epoch, prompt id); the order makes each exactly once, and no checkpoint lineage trains it twice.

One object per step and attempt holds the entries of that step. It is written when the prompts go out (`issued`) and replaced when the step
ends, so a kill in between leaves them open, never lost:

    issued -> trained    at least one completion was scored and entered the loss
           -> dropped    no completion was usable (a log-prob was not finite); the group added nothing to the loss
           -> failed     the infrastructure gave nothing, and the attempt ended

Attempt K begins at the checkpoint of step C with one `begin` record, at the key of (C, K), which no entry uses. From then on whatever an
older attempt did after step C is voided: its weights are not in the lineage. Nothing is deleted; the sums of `audit` always agree:

    issued = trained + dropped + failed + voided + open

`failed` entries stay failed: nothing of them counted, so there is nothing to void. `open` entries are those of the step in flight, or of an
attempt that died and has not been taken over yet. `scored` counts the issues of any fate with at least one judged completion.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.storage import ObjectStore

State = Literal["issued", "trained", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One issue in one attempt. `step` counts from 1 (the step that makes policy version `step`); `scored` of its completions were judged."""

    epoch: int
    prompt_id: str
    step: int
    attempt: int
    state: State = "issued"
    scored: int = 0


@dataclass(frozen=True, slots=True)
class Begin:
    """Attempt `attempt` took over after step `after_step`; `voided` entries of older attempts lost their effect by it."""

    attempt: int
    after_step: int
    voided: int = 0


def is_live(step: int, attempt: int, begins: Iterable[Begin]) -> bool:
    """Whether what `attempt` did at `step` is part of the surviving lineage: no later attempt began before that step."""
    return all(begin.attempt <= attempt or step <= begin.after_step for begin in begins)


def audit_entries(entries: Sequence[Entry], begins: Sequence[Begin]) -> dict[str, int]:
    """The sums: issued, scored, trained, dropped, failed, voided, open."""
    states = Counter(_fate(entry, begins) for entry in entries)
    sums = {name: states[name] for name in ("trained", "dropped", "failed", "voided", "open")}
    return {"issued": len(entries), "scored": sum(e.scored > 0 for e in entries), **sums}


def audit(store: ObjectStore) -> dict[str, int]:
    """The sums of the whole ledger of the rlvr stage at `store`."""
    return audit_entries(*read(store))


def read(store: ObjectStore) -> tuple[list[Entry], list[Begin]]:
    """All entries and begin records of the stage, in key order."""
    entries: list[Entry] = []
    begins: list[Begin] = []
    for item in store.list(artifacts.LEDGER):
        for line in store.get_bytes(item.key).decode().splitlines():
            record = json.loads(line)
            if "begin" in record:
                begins.append(Begin(**record["begin"]))
            else:
                entries.append(Entry(**record))
    return entries, begins


class Ledger:
    """The writing side of one attempt."""

    def __init__(self, claim: Claim) -> None:
        self.store, self.claim, self.attempt = claim.store, claim, claim.attempt

    def begin(self, after_step: int) -> Begin:
        """Take over after `after_step` and void what older attempts did later. The record is written even where nothing is voided."""
        entries, begins = read(self.store)
        after = [e for e in entries if e.attempt < self.attempt and e.step > after_step]
        begin = Begin(self.attempt, after_step, sum(_fate(e, begins) not in ("failed", "voided") for e in after))
        self._write(after_step, [{"begin": asdict(begin)}])
        return begin

    def issue(self, step: int, issues: Iterable[tuple[int, str]]) -> list[Entry]:
        """Record that these (epoch, prompt id) go out at `step`."""
        entries = [Entry(epoch, prompt_id, step, self.attempt) for epoch, prompt_id in issues]
        self._write(step, [asdict(e) for e in entries])
        return entries

    def settle(self, entries: Sequence[Entry], scored: Sequence[int]) -> list[Entry]:
        """Record how many completions of each issue were scored and trained on; 0 is a dropped issue."""
        settled = [replace(e, state="trained" if n else "dropped", scored=n) for e, n in zip(entries, scored, strict=True)]
        self._write(settled[0].step, [asdict(e) for e in settled])
        return settled

    def fail(self, entries: Sequence[Entry]) -> None:
        """Record that the infrastructure gave nothing for these."""
        self._write(entries[0].step, [asdict(replace(e, state="failed")) for e in entries])

    def _write(self, step: int, records: Sequence[dict[str, Any]]) -> None:
        self.claim.check()
        lines = "".join(json.dumps(record) + "\n" for record in records)
        self.store.put_bytes(artifacts.ledger_key(step, self.attempt), lines.encode())


def _fate(entry: Entry, begins: Iterable[Begin]) -> str:
    if entry.state == "failed":
        return "failed"
    if not is_live(entry.step, entry.attempt, begins):
        return "voided"
    return "open" if entry.state == "issued" else entry.state
