"""Which file is which split, and which archives are refused."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks import sources

SPLITS = {
    "train.csv": "train", "train_data.csv": "train", "test_data.first_upload.csv": "test", "data/test-00000-of-00001.parquet": "test",
    "medcalc_val.parquet": "validation", "held_out.csv": "test", "tuning/shard.csv": None, "dev.csv": "validation", "TEST.CSV": "test",
    "test_data_11_18_final.csv": "test", "one_shot.csv": None, "train_test.csv": None, "latest.csv": None, "train_data.csv.zip": "train",
}  # fmt: skip


@pytest.mark.parametrize(("name", "split"), SPLITS.items())
def test_a_file_name_decides_the_split_by_whole_words(name: str, split: str | None) -> None:
    assert sources.split_of(name) == split


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def chosen(source: Path, **spec: Any) -> dict[str, list[str]]:
    found = sources.by_split(source, sources.find(source, (".csv", ".parquet")), DataSpec(**spec))
    return {split: [f.name for f in files] for split, files in found.items()}


def test_files_of_other_kinds_and_hidden_files_are_no_data(tmp_path: Path) -> None:
    assert chosen(touch(tmp_path, "train.csv", "test.csv", "README.md", ".train.csv")) == {"train": ["train.csv"], "test": ["test.csv"]}


def test_shards_are_one_file(tmp_path: Path) -> None:
    names = [f"data/train-0000{i}-of-00003.parquet" for i in (2, 0, 1)]
    assert chosen(touch(tmp_path, *names)) == {"train": sorted(names)}


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 2 shards of the test split"):
        chosen(touch(tmp_path, "test-00000-of-00002.parquet"))


def test_a_named_file_is_taken_for_its_split_alone(tmp_path: Path) -> None:
    source = touch(tmp_path, "train.csv", "test_a.csv", "old/test_b.csv")
    assert chosen(source, test="test_b.csv") == {"train": ["train.csv"], "test": ["old/test_b.csv"]}


def test_a_file_named_for_one_split_is_not_also_what_its_name_says(tmp_path: Path) -> None:
    source = touch(tmp_path, "test_a.csv", "test_b.csv")
    assert chosen(source, train="test_a.csv") == {"train": ["test_a.csv"], "test": ["test_b.csv"]}


def test_a_named_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.test: no file 'tset.csv' .* did you mean 'test.csv'"):
        chosen(touch(tmp_path, "test.csv"), test="tset.csv")


def test_a_name_that_means_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a/test\.csv or b/test\.csv"):
        chosen(touch(tmp_path, "a/test.csv", "b/test.csv"), test="test.csv")


@pytest.mark.parametrize("source", ["missing", "empty"])
def test_nothing_to_read_is_an_error(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no such file or folder|no \.csv"):
        sources.find(tmp_path / source, (".csv",))


def archive(path: Path, *members: str | zipfile.ZipInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.writestr(member, "content " * 100)
    return path


def test_a_zip_inside_a_folder_is_read_in_place(tmp_path: Path) -> None:
    archive(tmp_path / "train_data.csv.zip", "train_data.csv", "__MACOSX/._train_data.csv")
    (file,) = sources.find(tmp_path, (".csv",))
    assert (file.name, file.read()[:7]) == ("train_data.csv.zip/train_data.csv", b"content")
    assert [p.name for p in tmp_path.iterdir()] == ["train_data.csv.zip"]


@pytest.mark.parametrize("name", ["/etc/train.csv", "../train.csv", "a/../../train.csv", "..\\train.csv", "C:/train.csv"])
def test_a_member_that_would_escape_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="refusing the archive"):
        sources.find(archive(tmp_path / "x.zip", name), (".csv",))


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train.csv")
    link.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match="link"):
        sources.find(archive(tmp_path / "x.zip", link), (".csv",))


def test_an_archive_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ARCHIVE_LIMIT_BYTES", 500)
    with pytest.raises(DataError, match="800 bytes, over the limit of 500"):
        sources.find(archive(tmp_path / "x.zip", "train.csv"), (".csv",))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", "train.csv")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a whole zip"):
        sources.find(path, (".csv",))


def test_a_damaged_member_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", "train.csv")
    raw = bytearray(path.read_bytes())
    raw[42] ^= 0xFF
    path.write_bytes(raw)
    (file,) = sources.find(path, (".csv",))
    with pytest.raises(DataError, match="cannot be unpacked"):
        file.read()
