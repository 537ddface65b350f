"""What a rollout server is told at its start: whose policies it serves and where they may come from.

`__main__` knows the run; vLLM's processes know only their environment. One variable carries it from the one to the other.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ehrmind_k8s import storage
from ehrmind_k8s.errors import SpecError

VARIABLE = "EHRMIND_SERVING"


@dataclass(frozen=True, slots=True)
class Serving:
    """`uid` of the run, the `sources` (store URIs) that policies are taken from, a `cache` folder of this server, and its start `model`."""

    uid: str
    sources: tuple[str, ...]
    cache: str
    model: str

    def to_environment(self) -> dict[str, str]:
        """The variable for the processes of the server."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> "Serving":
        """What this server was told. Raises SpecError outside a server that `python -m ehrmind_k8s.rollout.server` started."""
        try:
            document = json.loads(os.environ[VARIABLE])
        except KeyError:
            raise SpecError(f"{VARIABLE} is not set; start the server with python -m ehrmind_k8s.rollout.server") from None
        return cls(document["uid"], tuple(document["sources"]), document["cache"], document["model"])

    def served(self, name: str) -> str:
        """The name that a policy has on this server: unlike any of another run."""
        return f"{self.uid}.{name}"

    def folder(self, name: str) -> Path:
        """Where the files of a policy are kept on this machine."""
        return Path(self.cache) / "policy" / name

    def check_source(self, uri: str) -> None:
        """Raises SpecError for a URI outside this run and its inputs: whoever holds the token must not make the server read elsewhere."""
        place = storage.open(uri).uri
        if ".." in place.split("/") or not any(place.startswith(source.rstrip("/") + "/") for source in self.sources):
            raise SpecError(f"{uri}: not below this run or its inputs; this server takes policies of run {self.uid} only")
