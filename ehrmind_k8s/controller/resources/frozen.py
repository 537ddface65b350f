"""What a run keeps of its cluster until it begins anew: its profile, and the pod template of its rollout servers.

    ConfigMap <run>-profile-<hash>:  profile.json, rollout.json

An edited profile then changes no run under way, and an operator that renders servers in another way restarts none that a training samples from.
The ConfigMap is named after what is in it, and the status holds the whole hash. Whoever may create ConfigMaps in the namespace can make one
that looks like the run's own; only the operator can write a status.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ehrmind_k8s.controller.resources import document
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile

PROFILE_KEY, SERVERS_KEY = "profile.json", "rollout.json"


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the ConfigMap holds. `servers`: the pod template of the rollout servers, None for a run that has none."""

    profile: Profile
    servers: Object | None = None

    def data(self) -> dict[str, str]:
        """Entries of the ConfigMap. Without the profile's defaults, so that an operator that knows fewer keys reads it too."""
        found = {PROFILE_KEY: self.profile.model_dump_json(exclude_defaults=True)}
        return found | ({SERVERS_KEY: json.dumps(self.servers, sort_keys=True)} if self.servers else {})


def render(run: Run, frozen: Frozen) -> Object:
    """The ConfigMap."""
    data = frozen.data()
    return document.config_map(run, name(run.name, digest(data)), data)


def name(run: str, digest: str) -> str:
    """Name of the ConfigMap with this hash."""
    return f"{run}-profile-{digest[:10]}"


def digest(data: Mapping[str, Any]) -> str:
    """32 hex digits of a SHA-256 over the entries as they are written: those of an older operator keep theirs."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


def read(data: Mapping[str, Any]) -> Frozen:
    """What a ConfigMap holds. Raises ValueError where this version cannot read it."""
    return _read(str(data.get(PROFILE_KEY)), str(data.get(SERVERS_KEY, "null")))


@functools.lru_cache(maxsize=256)
def _read(profile: str, servers: str) -> Frozen:
    return Frozen(Profile.model_validate_json(profile), json.loads(servers))
