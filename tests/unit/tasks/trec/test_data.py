"""Which pairs become examples, in which split, and what is said of the others."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import TaskData
from ehrmind_k8s.tasks.trec import Trec, data, synthetic, trials
from tests.conftest import shared_data

TASK = Trec()


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    synthetic.write(tmp_path / "twin", 3, "unit")
    return tmp_path / "twin"


def read(folder: Path, **spec: object) -> tuple[TaskData, list[Example]]:
    found = TASK.read(folder, DataSpec(**spec), 3)  # type: ignore[arg-type]
    return found, list(found.examples)


def refused(folder: Path, **spec: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **spec)
    return str(caught.value)


def of(rows: list[Example], split: str) -> list[Example]:
    return [e for e in rows if e.split == split]


def small(folder: Path, *, topics: str = "", qrels: str = "1 0 NCT90000001 2\n", trials: object = None) -> Path:
    """One topic, one judgment, one trial, each as given."""
    folder.mkdir(parents=True)
    (folder / "topics2021.xml").write_text(topics or '<topics task="2021 TREC Clinical Trials"><topic number="1">a man</topic></topics>')
    (folder / "qrels2021.txt").write_text(qrels)
    (folder / "trial_info.json").write_text(json.dumps(trials or {"NCT90000001": {"brief_title": "t", "inclusion_criteria": "a"}}))
    return folder


def test_the_grade_of_every_row_is_the_one_that_the_facts_give(tmp_path: Path) -> None:
    """Patient and trial are read again from the prompt, and decide."""
    synthetic.write(tmp_path, 3, "quickstart")
    for e in read(tmp_path)[1]:
        patient, trial = e.messages[0]["content"].lower().split("clinical trial:")
        condition = next(c for c in synthetic.CONDITIONS if f"a study in {c}" in trial)
        excluded = next(x for x in synthetic.RULED_OUT if f"exclusion criteria:\n{x}" in trial)
        expected = 0 if f"{condition}: no" in patient else 1 if f"{excluded}: yes" in patient else 2
        assert e.target["grade"] == expected


def test_topics_are_in_one_split_and_train_has_every_grade_alike(twin: Path) -> None:
    found, rows = read(twin)
    assert len({(e.group, e.split) for e in rows}) == len({e.group for e in rows})
    assert len(set(Counter(e.category for e in of(rows, "train")).values())) == 1
    assert len(set(found.audit["balance"]["train_kept"].values())) == 1 < len(set(found.audit["balance"]["train_before"].values()))
    assert "new" in found.audit["protocol"]["meaning"] and found.audit["protocol"]["split"] == "by_topic"


def test_by_topic_and_trial_shares_no_trial_and_says_what_it_dropped(twin: Path) -> None:
    found, rows = read(twin, split="by_topic_and_trial")
    trials = {s: {e.target["trial"] for e in of(rows, s)} for s in ("train", "validation", "test")}
    assert not trials["train"] & trials["test"] and not trials["train"] & trials["validation"] and not trials["validation"] & trials["test"]
    assert Counter(d.reason for d in found.drops)["trial_in_test"] > 0
    assert found.audit["shared"] == {"trials_train_test": 0, "trials_train_validation": 0}


def test_by_year_tests_on_the_last_year(twin: Path) -> None:
    rows = read(twin, split="by_year")[1]
    assert {e.group[:4] for e in of(rows, "test")} == {"2022"} and {e.group[:4] for e in rows if e.split != "test"} == {"2021"}


def test_by_year_needs_two_years(tmp_path: Path) -> None:
    assert "all topics are of 2021" in refused(small(tmp_path / "x"), split="by_year")


def test_an_unknown_split_names_the_nearest(twin: Path) -> None:
    with pytest.raises(SpecError, match=r"by_topics.*by_topic"):
        read(twin, split="by_topics")


def test_trials_without_text_are_listed_and_too_many_stop(twin: Path) -> None:
    found, _ = read(twin)
    assert Counter(d.reason for d in found.drops) == {"no_trial_text": 3, "trial_withheld": 3}
    assert all(d.split in ("train", "validation", "test") for d in found.drops)
    assert found.audit["without_text"] == {"trials": 2, "withheld": 1}
    message = refused(twin, max_missing_trials=0.01)
    assert "2 of 44 judged trials have no text" in message and "data.max_missing_trials 0.01" in message


def test_every_real_form_of_a_trial_is_read(twin: Path) -> None:
    rows = read(twin)[1]
    texts = [e.messages[0]["content"] for e in rows]
    assert {e.meta["unsplit"] for e in rows} == {True, False}
    for e, text in zip(rows, texts, strict=True):
        assert ("\nEligibility:\n" in text) == e.meta["unsplit"] != ("\nExclusion criteria:\n" in text)
    assert all(": \n" not in text and "\r" not in text for text in texts)
    wrapped = [text for text in texts if "according to" in text]
    assert wrapped and all("criteria that take more than one line of the text as the registry prints it\n" in text for text in wrapped)


def test_a_v2_study_is_read(tmp_path: Path) -> None:
    study = {
        "protocolSection": {
            "identificationModule": {"nctId": "NCT90000001", "briefTitle": "A  title"},
            "conditionsModule": {"conditions": ["Gout"]},
            "eligibilityModule": {
                "eligibilityCriteria": "Inclusion Criteria:\n\n* age \\>= 18\n\nExclusion Criteria:\n\n* b",
                "sex": "FEMALE",
                "minimumAge": "18 Years",
            },
        }
    }  # fmt: skip
    (e,) = read(small(tmp_path / "x", trials=study))[1]
    text = e.messages[0]["content"]
    assert "Clinical trial: A title\nConditions: Gout\nSex: Female\nAge: 18 Years to no upper limit\nInclusion criteria:\n* age >= 18\n" in text


def test_the_year_in_a_files_name_wins_over_its_root(twin: Path) -> None:
    assert "2021 TREC" in (twin / "topics2022.xml").read_text() and any(e.group.startswith("2022-") for e in read(twin)[1])


def test_balancing_and_splits_depend_on_the_seed_alone(twin: Path) -> None:
    first, again = (list(TASK.read(twin, DataSpec(), 3).examples) for _ in range(2))
    other = list(TASK.read(twin, DataSpec(), 4).examples)
    assert first == again and {e.id for e in of(first, "test")} != {e.id for e in of(other, "test")}


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("1 0 NCT90000001 3\n", "qrels2021.txt, line 1: grade '3' is unknown; expected 0 not relevant, 1 excluded, 2 eligible"),
        ("1 0 NCT90000001\n", "qrels2021.txt, line 1: 3 fields"),
        ("1 0 NCT90000001 2\n1 0 NCT90000001 1\n", "line 2: topic 2021-1, trial NCT90000001 has grade 1, and had 2 before"),
        ("9 0 NCT90000001 2\n", "1 judged topics have no text, first 2021-9"),
    ],
)
def test_bad_judgments_are_named(tmp_path: Path, qrels: str, said: str) -> None:
    assert said in refused(small(tmp_path / "x", qrels=qrels))


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ("<topics><topic number='1'>a</topic>", "topics2021.xml: not whole XML"),
        ("<html/>", "the root is <html>; expected <topics>"),
        ("<topics><topic>a</topic></topics>", "a topic has no number"),
        ("<topics><topic number='1'> </topic></topics>", "topic 1 has no text"),
        ("<?xml version='1.0' encoding='no-such'?><topics/>", "declares an encoding that is not read"),
        ("<topics><topic number='1'>a</topic><topic number='01'>b</topic></topics>", "topic 01 is there twice"),
        ('<!DOCTYPE t [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><topics><topic number="1">&b;</topic></topics>', "declares the entity 'a'"),
    ],
)
def test_bad_topics_are_named(tmp_path: Path, topics: str, said: str) -> None:
    assert said in refused(small(tmp_path / "x", topics=topics))


def zipped(folder: Path, name: str, body: bytes, mode: int = 0o644) -> Path:
    small(folder, trials={"NCT90000009": {"brief_title": "another"}})
    with zipfile.ZipFile(folder / "part1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, body, zipfile.ZIP_DEFLATED)
    return folder


RECORD = b"<clinical_study><id_info><nct_id>NCT90000001</nct_id></id_info><eligibility><criteria><textblock>a</textblock></criteria></eligibility>"


def test_a_member_is_read_up_to_the_end_of_its_eligibility(tmp_path: Path) -> None:
    """What follows is not even parsed: here it is not XML."""
    assert len(read(zipped(tmp_path / "x", "NCT9000xxxx/NCT90000001.xml", RECORD + b"<broken"))[1]) == 1


@pytest.mark.parametrize(
    ("name", "body", "mode", "said"),
    [
        ("../NCT90000001.xml", RECORD, 0o644, "absolute path or `..`"),
        ("/NCT90000001.xml", RECORD, 0o644, "absolute path or `..`"),
        ("NCT90000001.xml", b"target", 0o120777, "a member is a link"),
        ("NCT90000001.xml", b"<clinical_study>" + b" " * (65 << 20), 0o644, "unpacks to more than"),
        ("NCT90000001.xml", b'<!DOCTYPE x [<!ENTITY lol "x">]>' + RECORD, 0o644, "declares the entity"),
        ("NCT90000001.xml", b"<clinical_study/>", 0o644, "no <nct_id> in it"),
    ],
)
def test_archives_that_are_not_safe_are_refused(tmp_path: Path, name: str, body: bytes, mode: int, said: str) -> None:
    assert said in refused(zipped(tmp_path / "x", name, body, mode))


def test_a_member_that_nobody_judged_is_not_even_opened(tmp_path: Path) -> None:
    folder = zipped(tmp_path / "x", "NCT90000008.xml", b"not XML at all")
    (folder / "trial_info.json").write_text(json.dumps({"NCT90000001": {"brief_title": "t", "inclusion_criteria": "a"}}))
    assert len(read(folder)[1]) == 1


def test_a_torn_archive_is_named(tmp_path: Path) -> None:
    folder = zipped(tmp_path / "x", "NCT90000001.xml", RECORD)
    body = (folder / "part1.zip").read_bytes()
    (folder / "part1.zip").write_bytes(body[: len(body) // 2])
    assert "part1.zip: not a whole zip file" in refused(folder)


def test_a_collection_that_shrinks_too_well_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    assert "corpus.json unpacks to more than" in refused(zipped(tmp_path / "x", "corpus.json", b" " * (65 << 20)))


def test_a_large_zip_read_by_two_processes_gives_what_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(tmp_path, 3, "unit")
    wanted, zips = {e.target["trial"] for e in read(tmp_path)[1]}, sorted(tmp_path.glob("*.zip"))
    alone = trials.read(zips, wanted, 1)
    monkeypatch.setattr(trials, "_WORTH_TRIALS", 1)
    assert trials.read(zips, wanted, 2) == alone and len(alone.trials) > 20


def test_a_trial_in_two_files_is_taken_from_the_first_and_counted(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "NCT90000001", "title": "other", "text": "Inclusion Criteria: b"}) + "\n")
    found, (e,) = read(folder)
    assert "Clinical trial: other" in e.messages[0]["content"] and found.audit["trials"]["repeated"] == 1
    assert "Clinical trial: t\n" in read(folder, trials=("trial_info.json", "corpus.jsonl"))[1][0].messages[0]["content"]


def test_a_withheld_record_does_not_hide_another_files_text(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    (folder / "a-trial.json").write_text(json.dumps({"NCT90000001": {"brief_title": "t"}}))
    found, rows = read(folder)
    assert len(rows) == 1 and found.audit["without_text"] == {"trials": 0, "withheld": 0}


def test_a_record_without_a_brief_title_shows_the_official_one_and_ages_of_n_a_are_none(tmp_path: Path) -> None:
    body = RECORD.replace(b"<eligibility>", b"<official_title>the official one</official_title><eligibility>").replace(
        b"</criteria>", b"</criteria><gender>All</gender><minimum_age>N/A</minimum_age><maximum_age>65 Years</maximum_age>"
    )
    (e,) = read(zipped(tmp_path / "x", "NCT90000001.xml", body))[1]
    assert "Clinical trial: the official one\nSex: All\nAge: no lower limit to 65 Years\n" in e.messages[0]["content"]


@pytest.mark.parametrize("hole", [None, [], 7, {"nctId": None}, {"eligibilityModule": None}, {"conditionsModule": {"conditions": None}}])
def test_holes_in_a_v2_study_are_holes(tmp_path: Path, hole: object) -> None:
    study = {"protocolSection": {"identificationModule": {"nctId": "NCT90000001"}, "eligibilityModule": {"eligibilityCriteria": None, "sex": None}}}
    if isinstance(hole, dict) and "nctId" not in hole:
        study["protocolSection"] |= hole  # type: ignore[arg-type]
    else:
        study["protocolSection"]["identificationModule"] = hole  # type: ignore[assignment]
    message = refused(small(tmp_path / "x", trials=study), max_missing_trials=1.0)
    assert "no trial in it" in message or "none of the 1 judged trials has a text" in message


def test_files_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    for name in ("manifest.json", "notes.xml", "table.parquet", "package.json"):
        (folder / name).write_text("{}")
    assert len(read(folder)[1]) == 1


def test_the_nearest_year_in_a_path_is_a_files_year(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    (folder / "trec_2021").mkdir()
    (folder / "topics2021.xml").rename(folder / "trec_2021" / "topics2022.xml")
    (folder / "qrels2021.txt").rename(folder / "trec_2021" / "qrels2022.txt")
    assert read(folder)[1][0].group == "2022-1"


def test_files_outside_the_source_are_not_read(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    (tmp_path / "topics2021.xml").write_text((folder / "topics2021.xml").read_text())
    assert "data.topics: no file '../topics2021.xml'" in refused(folder, topics=("../topics2021.xml",))


def test_a_byte_order_mark_is_no_part_of_the_first_topic(tmp_path: Path) -> None:
    assert len(read(small(tmp_path / "x", qrels="\ufeff1 0 NCT90000001 2\n"))[1]) == 1


def test_only_train_rows_have_texts_to_learn_and_the_teacher_errs_on_the_excluded_alone(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 3, "quickstart")
    found, rows = read(tmp_path)
    assert all(e.sft_text is None for e in rows if e.split != "train") and "traces.jsonl" in found.inputs
    wrong = [e.category for e in of(rows, "train") if e.sft_text and not TASK.score(e, e.sft_text).correct]
    assert set(wrong) == {"Excluded"} and 0.5 < len(wrong) / sum(e.category == "Excluded" for e in of(rows, "train")) < 0.7


def test_missing_kinds_of_files_name_the_key(tmp_path: Path) -> None:
    for name, key in (("topics2021.xml", "topics"), ("qrels2021.txt", "qrels"), ("trial_info.json", "trials")):
        folder = small(tmp_path / key)
        (folder / name).unlink()
        assert f"no {key} file" in refused(folder) and f"data.{key}" in refused(folder)


def test_two_texts_of_one_topic_are_refused(tmp_path: Path) -> None:
    folder = small(tmp_path / "x")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "trec-20211", "text": "a woman"}) + "\n")
    assert "topic 2021-1 has one text in queries.jsonl and another in topics2021.xml" in refused(folder)


TREC_2021 = {"topics": ("official/topics2021.xml",), "qrels": ("official/qrels2021.txt",), "trials": ("trials",)}
TREC_2022 = {"topics": ("official/topics2022.xml",), "qrels": ("trialgpt/trec_2022/qrels/test.tsv",), "trials": ("trials",)}


def test_the_published_files_of_2021() -> None:
    """Counts as in the SOURCE page of the data: 75 topics, 35,832 pairs, 24,243 / 6,019 / 5,570."""
    found, rows = read(shared_data("trec_ct"), **TREC_2021, max_missing_trials=1.0)
    judged = found.audit["judged"]
    assert judged == {"topics": 75, "pairs": 35832, "trials": 26162, "not_relevant": 24243, "excluded": 6019, "eligible": 5570}
    before, kept = (sum(found.audit["balance"][when].values()) for when in ("train_before", "train_kept"))
    assert len(rows) + len(found.drops) + before - kept == 35832
    assert found.audit["trials"]["used"] == 165


def test_the_pairs_that_the_papers_own_sample_has_trials_for() -> None:
    spec = {**TREC_2021, "trials": ("trials/trial_info_from_ehrmind_99.json",), "max_missing_trials": 1.0}
    rows = [j for j in data.qrels.read(data.layouts.find(shared_data("trec_ct"), DataSpec(**spec)).qrels)]  # type: ignore[arg-type]
    info = json.loads((shared_data("trec_ct") / "trials" / "trial_info_from_ehrmind_99.json").read_text())
    assert Counter(j.grade for j in rows if j.trial in info) == {0: 156, 1: 43, 2: 55}


def test_2022_is_counted_and_refused_with_the_number_of_missing_trials() -> None:
    message = refused(shared_data("trec_ct"), **TREC_2022)
    assert "26562 of 26585 judged trials have no text" in message


def test_both_releases_of_the_2021_judgments_agree() -> None:
    both = ("official/qrels2021.txt", "trialgpt/trec_2021/qrels/test.tsv")
    found, _ = read(shared_data("trec_ct"), **{**TREC_2021, "qrels": both}, max_missing_trials=1.0)
    assert found.audit["judged"]["pairs"] == 35832


def test_the_papers_parquet_gives_pairs_by_official_grades(tmp_path: Path) -> None:
    source = shared_data("trec_ct")
    for name in ("official/topics2021.xml", "trials/trial_info_from_ehrmind_99.json"):
        (tmp_path / Path(name).name).symlink_to(source / name)
    (tmp_path / "matching_sft.parquet").symlink_to(shared_data("ehrmind_parquet") / "matching_sft_val.parquet")
    found, rows = read(tmp_path)
    assert found.audit["judged"]["pairs"] == 100
    assert {k: found.audit["judged"][k] for k in ("not_relevant", "excluded", "eligible")} == {"not_relevant": 38, "excluded": 32, "eligible": 30}
    assert all("<think>" not in e.messages[0]["content"].split("Write nothing")[0] for e in rows)
