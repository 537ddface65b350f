"""SIGTERM, and servers that are gone, while RLVR waits for samples: the last whole step is saved, and the next attempt ends as if nothing was."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

from ehrmind_k8s import spec as document  # noqa: E402
from ehrmind_k8s import storage  # noqa: E402
from ehrmind_k8s.artifacts import Claim  # noqa: E402
from ehrmind_k8s.errors import RolloutUnavailable  # noqa: E402
from ehrmind_k8s.records import Completion, Example, Prompt, Verdict  # noqa: E402
from ehrmind_k8s.rollout.base import Policy, Sampling  # noqa: E402
from ehrmind_k8s.rollout.inprocess import InProcess  # noqa: E402
from ehrmind_k8s.tokenization import Tokenizer  # noqa: E402
from ehrmind_k8s.training import checkpoint, loading, loop, rlvr  # noqa: E402
from ehrmind_k8s.training.checkpoint import Checkpoint  # noqa: E402
from ehrmind_k8s.training.ledger import Ledger  # noqa: E402
from ehrmind_k8s.training.rollouts import Rollouts  # noqa: E402
from ehrmind_k8s.training.steps import Steps  # noqa: E402
from ehrmind_k8s.training.stopping import Abandoned, Stop  # noqa: E402
from tests.unit.training.conftest import example  # noqa: E402

STEPS = 4
Action = Callable[[], None]


class ByLength:
    """A task that finds some completions right: rewards differ, so weights move."""

    def score(self, _: Example, text: str) -> Verdict:
        return Verdict(len(text) % 2 == 0, text[:4], "scored")


class Disturbed(InProcess):
    """The in-process sampler; `before[call]` happens as it begins to sample for the call-th time, validations included."""

    before: dict[int, Action]
    calls = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.calls += 1
        self.before.get(self.calls, lambda: None)()
        return super().generate(prompts, sampling)


@pytest.fixture
def attempt(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Any]:
    """Train four steps as attempt `number`, from its newest checkpoint; returns the weights of the head."""

    def attempt(number: int, before: dict[int, Action], name: str = "run", validate_every: int = 0) -> Any:
        sizes = {"steps": STEPS, "prompts_per_step": 2, "samples_per_prompt": 4, "micro_batch_size": 8, "max_completion_tokens": 8}
        sizes |= {"learning_rate": 1e-2, "validate_every": validate_every, "checkpoint_every": 100}
        spec = document.load({"task": "medcalc", "preset": "tiny", "rlvr": sizes, "rollout": {"engine": "transformers"}})
        model = loading.start_model(spec.model, model_folder, 0)
        generator = Disturbed(tokenizer, model=model)
        generator.before = before
        generator.use(Policy("v0", ""))
        policies: Any = SimpleNamespace(
            current=Policy("v0", ""), follow=lambda trainer, step: None, publish_s=0.0, sync_s=0.0, take_seconds=lambda: (0.0, 0.0)
        )
        work, claim = tmp_path / f"{name}-{number}", Claim(storage.open(str(tmp_path / name)), number)
        claim.take()
        rows = [example(i) for i in range(8)]
        rollouts = Rollouts(spec, ByLength(), tokenizer, rows, generator, policies, Ledger(claim))  # type: ignore[arg-type]
        curve = loop.Curve(work / "out")
        steps = Steps(rollouts, rows[:2], curve, number)
        trainer = rlvr.build(spec, model, loading.processing_class(tokenizer, model_folder), rollouts, [steps], work / "trainer")
        steps.trainer = trainer
        boundary = loop.StepBoundary(claim, curve, 100, 3, lambda step: Checkpoint(step, number, step * 2), rollouts.stop)
        restored = work / "restored"
        resumed = checkpoint.restore(claim.store, restored)
        if resumed:
            curve.restore(restored)
        loop.train(trainer, boundary, restored if resumed else None)
        assert len(curve.path.read_text().splitlines()) == STEPS
        return model.lm_head.weight.detach().clone()

    return attempt


def steps(tmp_path: Path) -> list[int]:
    return [c.step for c in checkpoint.begun(storage.open(str(tmp_path / "run"))).values() if c]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def lose() -> None:
    raise RolloutUnavailable("no server")


@pytest.mark.parametrize(("disturb", "raised"), [(terminate, SystemExit), (lose, RolloutUnavailable)])
def test_the_step_before_the_one_that_waits_is_saved(attempt: Any, tmp_path: Path, disturb: Action, raised: type[BaseException]) -> None:
    expected = attempt(1, {}, name="undisturbed")
    with pytest.raises(raised) as caught:
        attempt(1, {3: disturb})
    assert steps(tmp_path) == [2]
    assert getattr(caught.value, "code", 143) == 143
    assert torch.equal(attempt(2, {}), expected)


def test_a_signal_during_a_validation_leaves_it_out_and_saves_the_step(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        attempt(1, {2: terminate}, validate_every=1)
    assert steps(tmp_path) == [1]
    assert torch.equal(attempt(2, {}, validate_every=1), attempt(1, {}, name="undisturbed", validate_every=1))


def test_servers_lost_during_a_validation_save_nothing_half_told(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(RolloutUnavailable):
        attempt(1, {2: lose}, validate_every=1)
    assert steps(tmp_path) == []


def test_before_the_first_step_there_is_nothing_to_save(attempt: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        attempt(1, {1: terminate})
    assert steps(tmp_path) == []


def test_a_signal_while_a_step_computes_is_asked_for_at_the_next_wait() -> None:
    stop = Stop()
    stop(signal.SIGTERM, None)
    with pytest.raises(Abandoned), stop.waiting():
        raise AssertionError("a wait began after SIGTERM")
    with pytest.raises(SystemExit):
        stop(signal.SIGTERM, None)


def test_with_several_ranks_a_wait_is_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    stop = Stop()
    with stop.waiting():
        stop(signal.SIGTERM, None)
    assert stop.asked
