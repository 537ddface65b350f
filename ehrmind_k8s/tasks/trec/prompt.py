"""The one prompt of the task: the patient, the trial, and a format whose example passes the scorer."""

from collections.abc import Mapping, Sequence

from ehrmind_k8s.tasks.trec.qrels import GRADES
from ehrmind_k8s.tasks.trec.trials import Trial

MEANING: Sequence[str] = (
    "the trial is not about this patient's condition",
    "the condition fits, but a criterion of the trial rules the patient out",
    "the patient fits the trial",
)
# Not an answer that can be right: a model that copies it is wrong on every row.
EXAMPLE = '<think>your reasoning</think>\n<answer>{"prediction": "Name", "idx": 9}</answer>'


def messages(patient: str, trial: Trial) -> Sequence[Mapping[str, str]]:
    """One user message. Lines that the trial's record leaves empty are left out."""
    scale = "\n".join(f"{i} {name}: {meaning}" for i, (name, meaning) in enumerate(zip(GRADES, MEANING, strict=True)))
    text = (
        f"Patient:\n{patient}\n\nClinical trial: {trial.title}\n{_facts(trial)}\n"
        f"Does this patient fit this trial?\n{scale}\n"
        f"Reason criterion by criterion, then answer with name and number. Write nothing outside this format:\n{EXAMPLE}"
    )
    return ({"role": "user", "content": text},)


def record(found: Sequence[Mapping[str, str]]) -> str:
    """The patient inside these messages."""
    return found[0]["content"].removeprefix("Patient:\n").partition("\n\nClinical trial: ")[0]


def completion(reasoning: str, grade: int) -> str:
    """A whole completion with this grade."""
    return f'<think>{reasoning.strip()}</think>\n<answer>{{"prediction": "{GRADES[grade]}", "idx": {grade}}}</answer>'


def _facts(trial: Trial) -> str:
    ages = f"{trial.youngest or 'no lower limit'} to {trial.oldest or 'no upper limit'}" if trial.youngest or trial.oldest else ""
    parts = [("Conditions", ", ".join(trial.conditions)), ("Sex", trial.sex), ("Age", ages)]
    lines = [f"{name}: {value}\n" for name, value in parts if value]
    heading = "Eligibility" if trial.unsplit else "Inclusion criteria"
    lines += [f"{name}:\n{value}\n" for name, value in ((heading, trial.inclusion), ("Exclusion criteria", trial.exclusion)) if value]
    return "".join(lines)
