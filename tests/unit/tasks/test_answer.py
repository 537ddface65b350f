"""The form of an answer: what is well-formed, what is a number, and that no text can cost more than linear time."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.tasks import answer

BLOCK = '<answer>{"answer": "25"}</answer>'

WELL_FORMED = {
    "think and answer": f"<think>because</think>\n{BLOCK}",
    "an empty think block": f"<think></think>{BLOCK}",
    "white space before, between and after": f" \n<think>x</think>\n\n\t{BLOCK}\n ",
    "one full stop after the answer": f"<think>x</think>{BLOCK}.",
    "a stop token after the answer": f"<think>x</think>{BLOCK}<|eot_id|>",
    "a full stop, then a stop token": f"<think>x</think>{BLOCK}.\n<|im_end|>",
    "white space inside the answer block": '<think>x</think><answer>\n{"answer": "25"}\n</answer>',
    "extra keys": '<think>x</think><answer>{"unit": "kg", "answer": "25"}</answer>',
    "duplicate keys, of which the last wins": '<think>x</think><answer>{"answer": "1", "answer": "25"}</answer>',
    "markup and code in the reasoning": f'<think>```print(1)``` <b>{{"answer": 3}}</b></think>{BLOCK}',
    "a turn header of another model in the reasoning": f"<think>Assistant: <|im_start|>assistant</think>{BLOCK}",
}

MALFORMED = {
    "empty text": "",
    "no tags": "25",
    "no think block": BLOCK,
    "think block reopened": f"<think><think>x</think>{BLOCK}",
    "think block never closed": f"<think>x{BLOCK}",
    "two answer blocks": f"<think>x</think>{BLOCK}{BLOCK}",
    "two answer blocks, the first one junk": f"<think>x</think><answer>junk</answer>{BLOCK}",
    "answer before think": f"{BLOCK}<think>x</think>",
    "answer inside think": f"<think>x {BLOCK}</think>",
    "closing tag before its opening": f"</think>x<think>{BLOCK}",
    "answer block cut off": '<think>x</think><answer>{"answer": "25"}',
    "text before think": f"Sure. <think>x</think>{BLOCK}",
    "text between the blocks": f"<think>x</think>So:{BLOCK}",
    "text after the answer": f"<think>x</think>{BLOCK} kg",
    "two full stops": f"<think>x</think>{BLOCK}..",
    "stop token twice": f"<think>x</think>{BLOCK}<|eot_id|><|eot_id|>",
    "upper-case tags": f"<THINK>x</THINK>{BLOCK}",
    "a clean block after a foreign turn header": f"junk Assistant:<think>x</think>{BLOCK}",
    "trailing comma": '<think>x</think><answer>{"answer": "25",}</answer>',
    "single quotes": "<think>x</think><answer>{'answer': '25'}</answer>",
    "fenced": '<think>x</think><answer>```json\n{"answer": "25"}\n```</answer>',
    "bare number": "<think>x</think><answer>25</answer>",
    "null": "<think>x</think><answer>null</answer>",
    "list that holds the key's name": '<think>x</think><answer>["answer"]</answer>',
    "text that holds the key's name": '<think>x</think><answer>"answer"</answer>',
    "key missing": '<think>x</think><answer>{"result": "25"}</answer>',
    "two objects": '<think>x</think><answer>{"answer": "25"} {"answer": "25"}</answer>',
    "NaN literal": '<think>x</think><answer>{"answer": NaN}</answer>',
    "Infinity literal": '<think>x</think><answer>{"answer": -Infinity}</answer>',
    "closing tag inside the value": '<think>x</think><answer>{"answer": "</answer>"}</answer>',
}

NUMBERS = {
    "25": 25, "25.": 25, ".5": 0.5, "2.5e1": 25, "2.5E+1": 25, "-3.2": -3.2, "+4": 4, "\u22123": -3, "1e\u22122": 0.01, "025": 25, " 7\n": 7,
    "1,234.5": 1234.5, "12,345,678": 12345678, "-0": 0, "0" * 5000 + "1": 1,
}  # fmt: skip
NOT_NUMBERS = [
    "", " ", ".", "-", "e5", "25%", "25 mg", "$25", "~25", "<1", "50/2", "(25)", "25.0 # mL", "25 if 1 else 0", "1_000", "0x4", "nan", "inf", "True",
    "None", "four", "4 or 5", "25,2", "0,123", "1234,567", "12,34", "1,2345", "1 234.5", "- 3.2", "6.67×10^-1", "2.5.1", "--3", "1e999", "٣", "２５",
    '__import__("os")._exit(7)', 'open("x","w")', "9**9**9", "lower", "eval(ground_truth)",
]  # fmt: skip


@pytest.mark.parametrize("text", WELL_FORMED.values(), ids=WELL_FORMED)
def test_well_formed(text: str) -> None:
    found = answer.parse(text, ["answer"])
    assert found is not None and found["answer"] == "25"


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed(text: str) -> None:
    assert answer.parse(text, ["answer"]) is None


def test_every_key_is_needed() -> None:
    text = '<think>x</think><answer>{"prediction": "Eligible", "idx": 2}</answer>'
    assert answer.parse(text, ["prediction", "idx"]) == {"prediction": "Eligible", "idx": "2"}
    assert answer.parse(text, ["prediction", "label"]) is None


@pytest.mark.parametrize(("text", "value"), NUMBERS.items(), ids=[t[:12].strip() for t in NUMBERS])
def test_number(text: str, value: float) -> None:
    assert answer.number(text) == value


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_not_a_number(text: str) -> None:
    assert answer.number(text) is None


@pytest.mark.parametrize("value", [True, None, ["25"], {"value": "25"}], ids=str)
def test_only_a_json_number_or_text_is_a_number(value: object) -> None:
    assert answer.number(value) is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_from_every_spelling(value: float) -> None:
    for text in (repr(value), f"{value:.25e}", f" {value!r} ", repr(value).replace("-", "\u2212")):
        assert answer.number(text) == value
    assert answer.number(answer.canonical(value)) == value


@given(st.integers(0, 10**15))
def test_thousands_commas_change_nothing(value: int) -> None:
    assert answer.number(f"{value:,}") == value


@given(st.text() | st.text(alphabet='<>/thinkaswer{}":,.0123456789-e '))
def test_any_text_is_parsed_or_malformed(text: str) -> None:
    for whole in (text, f"<think>{text}</think><answer>{text}</answer>", f'<think></think><answer>{{"answer": {json.dumps(text)}}}</answer>{text}'):
        found = answer.parse(whole, ["answer"])
        assert found is None or "answer" in found
        assert isinstance(answer.loose_block(whole), str)


HOSTILE = {
    "open brackets": "[" * 100_000,
    "open objects": '{"answer":' * 10_000,
    "digits": f'{{"answer": {"9" * 100_000}}}',
    "digits and no number": f'{{"answer": "{"9" * 100_000}x"}}',
    "thousands groups and no number": f'{{"answer": "1{",111" * 25_000}x"}}',
    "huge exponent": f'{{"answer": "1e{"9" * 100_000}"}}',
    "blanks": f'{{"answer": "{" " * 100_000}x"}}',
    "tags": "<think>" * 14_000,
    "escapes": f'{{"answer": "{chr(92)}u0031"}}' * 5_000,
}


@pytest.mark.timeout(10)  # quadratic time would take minutes; benchmarks/scoring.py measures the milliseconds
@pytest.mark.parametrize("block", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_only_a_wrong_answer(block: str) -> None:
    found = answer.parse(f"<think>x</think><answer>{block}</answer>", ["answer"])
    assert found is None or answer.number(found["answer"]) is None
