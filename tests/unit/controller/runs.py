"""Runs in a state that a test wants, in words: `a_run().until("rlvr")`."""

from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller.records import Decision
from tests.unit.controller.world import Object, Operator, World


class Run:
    """A world and an operator that sees all of it."""

    def __init__(self, world: World) -> None:
        self.world, self.operator = world, Operator(world)

    def go(self, rounds: int = 1, seconds: float = 1.0) -> "Run":
        """Look and let time pass, so many times."""
        for _ in range(rounds):
            self.look()
            self.world.tick(seconds)
        return self

    def until(self, stage: str, state: str = "running") -> "Run":
        """Go on until a stage is in a state."""
        for _ in range(100):
            if self.stage(stage)["state"] == state:
                return self
            self.go()
        raise AssertionError(self.message)

    def end(self) -> "Run":
        """Go on until it has ended."""
        for _ in range(300):
            if self.state in crd.TERMINAL:
                return self
            self.go(seconds=5)
        raise AssertionError(self.message)

    def look(self) -> Decision:
        self.operator.see()
        decision = self.operator.look()
        self.operator.see()
        assert decision
        return decision

    def stage(self, name: str) -> Object:
        return next((s for s in self.world.status.get("stages", []) if s["name"] == name), {"state": ""})

    def pod(self) -> Object:
        """The pod of the stage under way."""
        found = self.world.stage_pod()
        assert found
        return found

    def held(self, stage: str, status: Object) -> "Run":
        """Go on until a stage has a pod, which then stays in this status."""
        self.until(stage, "starting").world.tick(0)
        self.world.edit(self.pod(), status=status)
        self.look()
        return self

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(c for c in self.world.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    def names(self, *kinds: str) -> list[str]:
        return sorted(o["metadata"]["name"] for o in self.world.of(*kinds))

    @property
    def state(self) -> str:
        return str(self.world.status.get("state"))

    @property
    def message(self) -> str:
        return str(self.world.status.get("message"))

    @property
    def events(self) -> list[str]:
        return [e.reason for e in self.world.events]


def a_run(spec: dict[str, Any] | None = None, **world: Any) -> Run:
    return Run(World(spec=spec or {}, **world))
