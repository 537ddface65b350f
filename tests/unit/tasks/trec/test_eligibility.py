"""Criteria are found under the headings that the registry's records really have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.tasks.trec import eligibility


@pytest.mark.parametrize(
    ("text", "inclusion", "exclusion"),
    [
        ("Inclusion Criteria:\n\n - a\n\nExclusion Criteria:\n\n - b", "- a", "- b"),
        ("Inclusion Criteria\r\n\r\n - a\r\n\r\nExclusion Criteria\r\n\r\n - b", "- a", "- b"),
        ("KEY INCLUSION CRITERIA (cohort A)\n\na\n\nMain Exclusion Criteria\n\nb", "a", "b"),
        ("Inclusion Criteria: adults\n\nExclusion: children", "adults", "children"),
        ("Inclusion Criteria for patients:\n\na\n\nInclusion Criteria for controls:\n\nb\n\nExclusion Criteria:\n\nc", "a\nb", "c"),
        ("Some words first.\n\nExclusion Criteria:\n\nb", "Some words first.", "b"),
        ("Exclusion Criteria:\n\nb\n\nInclusion Criteria:\n\na", "a", "b"),
    ],
)
def test_headings_tell_the_two_lists_apart(text: str, inclusion: str, exclusion: str) -> None:
    assert eligibility.split(text) == (inclusion, exclusion, False)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[Exclusion Criteria]", "exclusion"),
        ("**Exclusion Criteria**", "exclusion"),
        ("Exclusions:", "exclusion"),
        ("Patients are excluded if:", "exclusion"),
        ("Non inclusion criteria:", "exclusion"),
        ("1. Inclusion Criteria:", "inclusion"),
        ("PART A - Inclusion criteria:", "inclusion"),
        ("Exclusion Criteria for Stage 1", "exclusion"),
        ("- Does not meet inclusion criteria", None),
        ("- No exclusion criteria", None),
        ("inclusion criteria", None),
        ("to confirm exclusion of patient due to QTc", None),
        ("Other cancer in progress at inclusion", None),
        ("Patients who received before inclusion:", None),
        ("Inclusion criteria of the parent study were met", None),
    ],
)
def test_a_heading_has_the_form_of_one(line: str, kind: str | None) -> None:
    """Seen in real records, but for the second group's first two."""
    other = "Inclusion" if kind == "exclusion" else "Exclusion"
    found = eligibility.split(f"{other} Criteria:\n\n- before\n\n{line}\n\n- after")
    own = {"inclusion": found.inclusion, "exclusion": found.exclusion}
    if kind:
        assert own[kind] == "- after" and own[other.lower()] == "- before"
    else:
        assert own["exclusion"].endswith("- after") and line in own["exclusion"] and not own["inclusion"]


def test_headings_inside_a_paragraph_begin_a_line() -> None:
    assert eligibility.split("INCLUSION CRITERIA: adults with gout EXCLUSION CRITERIA: smokers") == ("adults with gout", "smokers", False)
    assert eligibility.split("Inclusion Criteria: adults. Exclusion Criteria: smokers.") == ("adults.", "smokers.", False)


def test_without_a_heading_everything_is_inclusion_and_flagged() -> None:
    assert eligibility.split("DISEASE CHARACTERISTICS:\n\n - proven\n\n - no metastases") == (
        "DISEASE CHARACTERISTICS:\n- proven\n- no metastases", "", True,
    )  # fmt: skip
    assert eligibility.split("") == ("", "", False)


def test_a_criterion_that_speaks_of_criteria_is_no_heading() -> None:
    text = "Inclusion Criteria:\n\n - does not meet any of the exclusion criteria that are listed in the protocol of the parent study below\n\n - b"
    assert eligibility.split(text).exclusion == ""


def test_hard_wrapped_lines_are_joined_and_bullets_are_kept_apart() -> None:
    text = "  -  certain conditions, active\n     cancer treatment, and\n     diabetes\n  -  pregnant\n  1. first\n  2) second"
    assert eligibility.unwrap(text) == ["- certain conditions, active cancer treatment, and diabetes", "- pregnant", "1. first", "2) second"]


@pytest.mark.parametrize("left", ["inclusion criteria: \n\n a", "inclusion criteria \n\n a", ": \n\n a", "a", "Inclusion Criteria\n\na"])
def test_what_a_splitter_left_of_a_heading_goes(left: str) -> None:
    assert eligibility.trimmed(left, "inclusion") == "a"


@given(
    st.lists(st.sampled_from(["adults", "- age 18", "Inclusion Criteria:", "EXCLUSION CRITERIA", "", "Exclusion: smokers", "1. gout"]), max_size=12)
)
def test_no_word_is_lost_but_headings(lines: list[str]) -> None:
    found = eligibility.split("\n\n".join(lines))
    words = [w for line in lines if "riteria" not in line and "RITERIA" not in line for w in line.removeprefix("Exclusion: ").split()]
    assert sorted(f"{found.inclusion} {found.exclusion}".split()) == sorted(words)


@given(st.integers(1, 4))
def test_a_hostile_line_costs_no_more_than_its_length(power: int) -> None:
    for line in ("-" * 10**power, "inclusion " * 10**power, "a " * 10**power + "exclusion criteria"):
        found = eligibility.split(line * 3)
        assert len(found.inclusion) + len(found.exclusion) >= len(line)
