"""Questions of the real task (its synthetic twin, unit size) and a generator that answers from a script, for tests without a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, spec, storage
from ehrmind_k8s.artifacts import Claim, Manifest
from ehrmind_k8s.errors import RolloutUnavailable
from ehrmind_k8s.evaluation.generate import Questions, Subject
from ehrmind_k8s.records import Completion, Example, Prompt
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.tasks import registry

MALFORMED = "no answer block here"


@dataclass
class Script:
    """A generator whose texts are a function of prompt id, sampling and sample index (None: no usable sample).

    `servers` is how many calls it answers before every server is gone; `asked` lists the prompt ids of each call.
    """

    text: Callable[[str, Sampling, int], str | None]
    servers: int = 10**9
    asked: list[list[str]] = field(default_factory=list)
    policy: str = ""

    def use(self, policy: Policy) -> None:
        self.policy = policy.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        if len(self.asked) >= self.servers:
            raise RolloutUnavailable("no healthy server")
        self.asked.append([p.id for p in prompts])
        return [self._group(p.id, sampling) for p in prompts]

    def close(self) -> None:
        pass

    def _group(self, prompt_id: str, sampling: Sampling) -> list[Completion]:
        texts = [self.text(prompt_id, sampling, i) for i in range(sampling.n)]
        return [Completion(prompt_id, (1, 2, 3), (0.0, 0.0, 0.0), t, "stop", self.policy) for t in texts if t is not None]


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    task, folder = registry.get("medcalc"), tmp_path_factory.mktemp("twin")
    task.synthesize(folder, 5, "unit")
    return [e for e in task.read(folder, spec.DataSpec(), 5).examples if e.split == "test"]


@pytest.fixture
def questions(examples: list[Example]) -> Questions:
    return ask(examples)


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    found = Claim(storage.open(str(tmp_path / "run" / "evaluate")), 1)
    found.take()
    return found


def ask(examples: Sequence[Example], samples: int = 2) -> Questions:
    prompts = tuple(Prompt(e.id, (1, 2)) for e in examples)
    sampled = Sampling(samples, 16, temperature=1.0) if samples else None
    return Questions(registry.get("medcalc"), tuple(examples), prompts, Sampling(1, 16, greedy=True), sampled)


def subject(label: str = "sft", weights: str = "ab") -> Subject:
    return Subject(label, Policy(label, f"file:///run/policy/{label}"), Manifest("policy", (artifacts.File("model.safetensors", 1, weights),)))


def gold_of(examples: Sequence[Example]) -> dict[str, str]:
    task = registry.get("medcalc")
    return {e.id: task.gold(e) for e in examples}
