"""training/data.py: real files of every kind, good and bad."""

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from rich.progress import Progress

from artifact.errors import SlipwayError
from tests.training import tiny
from training.data import Row, read_records, read_table
from training.errors import DataInvalid, SourceUnavailable

SECRET = "what the customer wrote"
THRESHOLDS = {"negative": {"at_most": -0.5}, "positive": {"at_least": 0.5}}


def read(path: Path, progress: Progress, **changes: object) -> tuple[Row, ...]:
    recipe = tiny.recipe(data__path=str(path), **changes)
    return read_table(recipe, path.parent / "cache", progress).rows


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EXPECTED = (Row("it, was good", 1), Row("bad\nfilm", 0))


def test_csv_with_quotes_and_line_breaks(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", 'id,text,label\n1,"it, was good",positive\n2,"bad\nfilm",negative\n')
    assert read(path, progress) == EXPECTED


def test_csv_with_a_byte_order_mark(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", b"\xef\xbb\xbftext,label\r\nfine,positive\r\n")
    assert read(path, progress) == (Row("fine", 1),)


def test_tsv(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\nit, was good\tpositive\n"bad\nfilm"\tnegative\n')
    assert read(path, progress) == EXPECTED


def test_jsonl(tmp_path: Path, progress: Progress) -> None:
    lines = [{"text": "it, was good", "label": "positive"}, {"text": "bad\nfilm", "label": "negative"}]
    path = write(tmp_path, "a.jsonl", "\n\n".join(json.dumps(line) for line in lines))
    assert read(path, progress) == EXPECTED


def test_parquet(tmp_path: Path, progress: Progress) -> None:
    table = pyarrow.table({"other": [1, 2], "text": ["it, was good", "bad\nfilm"], "label": ["positive", "negative"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", progress) == EXPECTED


@pytest.mark.parametrize("columns", [None, ["a"], ["a", "absent"]])
def test_records_have_every_column_or_those_asked_for(tmp_path: Path, columns: list[str] | None) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "b": ["x"]}), tmp_path / "t.parquet")
    expected = {"a": 1, "b": "x"} if columns is None else {"a": 1}
    assert list(read_records(tmp_path / "t.parquet", columns, field="--data")) == [expected]
    with pytest.raises(SourceUnavailable, match="--data "):
        list(read_records(tmp_path / "absent.csv", field="--data"))


def test_other_columns_and_names(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.jsonl", '{"body": "x", "stars": 1}\n{"body": "y", "stars": true}\n')
    names = {"1": "negative", "true": "positive"}
    rows = read(path, progress, data__text_column="body", data__label_column="stars", data__label_names=names)
    assert [row.label for row in rows] == [0, 1]


def test_ratings_fall_into_bands_and_between_them(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,-2\nb,0.1\nc,3.5\n")
    rows = read(path, progress, data__thresholds=THRESHOLDS)
    assert [(row.label, row.rating) for row in rows] == [(0, -2.0), (None, 0.1), (1, 3.5)]


def parquet_of(text: bytes) -> bytes:
    """A Parquet file whose one text is said to be UTF-8."""
    texts = pyarrow.array([text], pyarrow.binary()).view(pyarrow.string())
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": ["positive"]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "", "a.csv: no rows"),
        ("a.csv", "text,label\n", "a.csv: no rows"),
        ("a.csv", f"body,label\n{SECRET},positive\n", "row 1: no column 'text'; set data.text_column"),
        ("a.csv", f"text,stars\n{SECRET},5\n", "row 1: no column 'label'"),
        ("a.csv", f"text,label\nfine,positive\n{SECRET}\n", "row 2: column 'label' is empty"),
        ("a.csv", f"text,label\n{SECRET},0.7\n", r"row 1: column 'label' holds a number.*data.label_names.*thresholds"),
        ("a.csv", f"text,label\nfine,positive\nx,{SECRET}\n", "row 2: the label in column 'label' is not one of"),
        ("a.csv", f'text,label\n"{SECRET},positive\n', "a.csv, line 2: unexpected end of data"),
        ("a.csv", "text,label\ncafé,positive\n".encode("latin-1"), r"a.csv: not UTF-8 \(byte 14\)"),
        ("a.csv", b"text,label\n" + b"fine,positive\n" * 200_000 + b"\xff,positive\n", r"not UTF-8 \(byte 2800011\)"),
        ("a.jsonl", '{"text": "fine", "label": "positive"}\né'.encode()[:-1], r"a.jsonl: not UTF-8 \(byte 38\)"),
        ("a.csv", "text,label\nfine,positive\n".encode("utf-16"), "a.csv: not UTF-8"),
        ("a.jsonl", '{"text": "fine", "label": "positive"}\n{"text": ', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '["fine"]\n', "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", '{"text": 5, "label": "positive"}\n', "row 1: column 'text' does not hold text"),
        ("a.jsonl", '{"text": null, "label": "positive"}\n', "row 1: column 'text' is empty"),
        ("a.jsonl", "[" * 200_000, "a.jsonl, line 1: not JSON"),
        ("a.parquet", f"not parquet: {SECRET}", "a.parquet: not a Parquet file"),
        ("a.parquet", parquet_of(SECRET.encode() + b"\xff"), "a.parquet: holds a text that is not UTF-8"),
        ("a.xlsx", SECRET, "a.xlsx: the name must end in one of .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_bad_tables_are_refused_without_echo(
    name: str, content: str | bytes, sentence: str, tmp_path: Path, progress: Progress
) -> None:
    with pytest.raises(SlipwayError, match=sentence) as refused:
        read(write(tmp_path, name, content), progress)
    assert SECRET not in refused.value.message
    assert progress.finished, "no bar is left behind"


@pytest.mark.parametrize("rating", ["warm", "nan", "inf", "1e999", "true"])
def test_a_rating_must_be_a_finite_number(rating: str, tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", f"text,label\nx,{rating}\n")
    with pytest.raises(DataInvalid, match="row 1: column 'label' does not hold a number"):
        read(path, progress, data__thresholds=THRESHOLDS)


def test_a_file_that_is_not_there(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(SourceUnavailable, match=r"data.path .*gone.csv: No such file"):
        read(tmp_path / "gone.csv", progress)


# A data set as `datasets` finds it in a folder or on the hub.

CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  - name: id
    dtype: int64
---
"""


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "reviews"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split, rows in {"train": (("good", 1), ("bad", 0)), "test": (("fine", 1),)}.items():
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows], "id": [7] * len(rows)}
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def hub(folder: Path, **data: object) -> dict[str, object]:
    return {"data": {"source": "hub", "id": str(folder), **data}, "labels": ["neg", "pos"]}


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def test_a_hub_data_set_with_class_names_and_its_own_test_split(hub_folder: Path, progress: Progress) -> None:
    recipe = tiny.recipe(**hub(hub_folder, test_splits=["test"]))
    table = read_table(recipe, hub_folder, progress)
    assert table.rows == (Row("good", 1), Row("bad", 0), Row("fine", 1, None, pinned_to_test=True))
    assert table.origin == "local folder"


def test_a_hub_data_set_without_the_column(hub_folder: Path, progress: Progress) -> None:
    recipe = tiny.recipe(**hub(hub_folder, text_column="review"))
    with pytest.raises(DataInvalid, match="split train, row 1: no column 'review'"):
        read_table(recipe, hub_folder, progress)


def test_a_hub_data_set_without_the_split(hub_folder: Path, progress: Progress) -> None:
    recipe = tiny.recipe(**hub(hub_folder, splits=["dev"]))
    with pytest.raises(SourceUnavailable, match="split dev: cannot be loaded"):
        read_table(recipe, hub_folder, progress)


def test_a_hub_data_set_that_is_not_there(tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = tiny.recipe(**hub(Path("someone/no-such-data")))
    with pytest.raises(SourceUnavailable, match="someone/no-such-data, split train: cannot be loaded"):
        read_table(recipe, tmp_path, progress)


# Several sources in one table.


def test_sources_are_joined_each_with_its_own_columns(tmp_path: Path, progress: Progress) -> None:
    write(tmp_path, "a.csv", "text,label\nfine,positive\n")
    write(tmp_path, "b.jsonl", '{"body": "bad", "stars": 1}\n')
    sources = [
        {"source": "file", "path": str(tmp_path / "a.csv")},
        {
            "source": "file",
            "path": str(tmp_path / "b.jsonl"),
            "text_column": "body",
            "label_column": "stars",
            "label_names": {"1": "negative"},
            "held_out": True,
        },
    ]
    table = read_table(tiny.recipe(data={"source": "joined", "sources": sources}), tmp_path, progress)
    assert table.name == "a.csv; b.jsonl"
    assert table.licence == "unknown"
    assert table.rows == (
        Row("fine", 1, source="a.csv"),
        Row("bad", 0, pinned_to_test=True, source="b.jsonl"),
    )


def test_files_of_two_folders_that_are_called_the_same_stay_two_sources(tmp_path: Path, progress: Progress) -> None:
    sources = []
    for folder in ("films", "parcels"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "train.csv", f"text,label\nthe {folder} are fine,positive\n")
        sources.append({"source": "file", "path": str(tmp_path / folder / "train.csv")})
    table = read_table(tiny.recipe(data={"source": "joined", "sources": sources}), tmp_path, progress)
    assert [row.source for row in table.rows] == ["train.csv", "train.csv (2)"]
    assert table.name == "train.csv; train.csv (2)"


OTHER = {"negative": {"at_most": 1}, "positive": {"at_least": 2}}


@pytest.mark.parametrize(
    ("other", "ratings"),
    [(THRESHOLDS, [2.0, 3.0]), ({}, [2.0, None]), (OTHER, [None, None])],
    ids=["alike", "named", "not"],
)
def test_ratings_survive_joining_only_where_they_mean_the_same(
    other: dict[str, object], ratings: list[float | None], tmp_path: Path, progress: Progress
) -> None:
    write(tmp_path, "a.csv", "text,label\nfine,2\n")
    write(tmp_path, "b.csv", "text,label\ngood,3\n")
    names = {} if other else {"3": "positive"}
    sources = [
        {"source": "file", "path": str(tmp_path / "a.csv"), "thresholds": THRESHOLDS},
        {"source": "file", "path": str(tmp_path / "b.csv"), "thresholds": other, "label_names": names},
    ]
    rows = read_table(tiny.recipe(data={"source": "joined", "sources": sources}), tmp_path, progress).rows
    assert [row.rating for row in rows] == ratings
    assert [row.label for row in rows] == [1, 1]


def test_an_id_twice_is_refused_with_both_rows(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", f"id,text,label\n{SECRET},a,positive\n2,b,negative\n{SECRET},c,positive\n")
    with pytest.raises(DataInvalid, match="row 3: column 'id' repeats the id of row 1") as refused:
        read(path, progress, data__id_column="id")
    assert SECRET not in refused.value.message
    assert len(read(path, progress)) == 3


def test_a_column_of_ids_that_is_not_there_is_named(tmp_path: Path, progress: Progress) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,positive\n")
    with pytest.raises(DataInvalid, match=r"row 1: no column 'key'; set data\.id_column$"):
        read(path, progress, data__id_column="key")


def test_ids_of_a_hub_data_set_are_read_too(hub_folder: Path, progress: Progress) -> None:
    recipe = tiny.recipe(**hub(hub_folder, id_column="id"))
    with pytest.raises(DataInvalid, match="split train, row 2: column 'id' repeats the id of row 1"):
        read_table(recipe, hub_folder, progress)


def test_ids_are_read_from_parquet_too(tmp_path: Path, progress: Progress) -> None:
    table = pyarrow.table({"key": [7, 7], "text": ["a", "b"], "label": ["positive", "negative"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataInvalid, match="row 2: column 'key' repeats the id of row 1"):
        read(tmp_path / "a.parquet", progress, data__id_column="key")


def test_a_source_gives_so_many_rows_and_the_same_ones_when_it_grows(tmp_path: Path, progress: Progress) -> None:
    lines = [f"text {number},{'positive' if number % 2 else 'negative'}\n" for number in range(40)]
    path = write(tmp_path, "a.csv", "text,label\n" + "".join(lines))
    some = read(path, progress, data__max_rows=10)
    everything = read(path, progress)
    assert len(some) == 10
    assert some == tuple(row for row in everything if row in some), "in file order"
    grown = write(tmp_path, "b.csv", "text,label\nanother,positive\n" + "".join(reversed(lines)))
    assert len(set(read(grown, progress, data__max_rows=10)) & set(some)) >= 9
    assert read(path, progress, data__max_rows=41) == everything
