"""Whether an object of the API server has what we want of it. Pure.

Others may add to it: the server fills in defaults, Kueue writes labels into a Deployment's template, a mesh adds volumes. So what counts is
that everything wanted is there, not that nothing else is. What we no longer want shows in the hash of what was applied last, an annotation.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ehrmind_k8s import crd

_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,3})?")
_UNITS = {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
_UNITS |= {unit: Decimal(1000) ** (i + 1) for i, unit in enumerate("kMGTPE")}
_UNITS |= {unit + "i": Decimal(1024) ** (i + 1) for i, unit in enumerate("KMGTPE")}


def stamped(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`wanted` with the hash of all of it as an annotation."""
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    meta = dict(wanted["metadata"])
    meta["annotations"] = {**(meta.get("annotations") or {}), crd.ANNOTATION_PLAN: digest}
    return {**wanted, "metadata": meta}


def lacks(live: Any, wanted: Any) -> bool:
    """Whether something that is wanted is not so in what is there."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return bool(wanted) or live is not None
        return any(lacks(live.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _lacks_item(live or [], wanted)
    if wanted in (None, "", 0, False):
        return bool(live)  # the server leaves out what is empty
    return bool(live != wanted and not _same_amount(live, wanted))


def _lacks_item(live: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Items with a name are found by what they say; others mean something by their place, and none may be added."""
    if wanted and all(isinstance(w, Mapping) and "name" in w for w in wanted):
        return any(all(lacks(there, item) for there in live) for item in wanted)
    return len(live) != len(wanted) or any(map(lacks, live, wanted))


def _same_amount(one: Any, other: Any) -> bool:
    """Quantities come back as the server writes them: 1024Mi as 1Gi, 0.5 as 500m."""
    amounts = [_amount(x) for x in (one, other)]
    return amounts[0] is not None and amounts[0] == amounts[1]


def _amount(value: Any) -> Decimal | None:
    found = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    if not found:
        return None
    number, unit = found[1], found[2] or ""
    return Decimal(number) * _UNITS[unit] if unit in _UNITS else Decimal(number + unit)
