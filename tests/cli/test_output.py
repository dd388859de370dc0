"""cli/output.py: data on stdout, talk on stderr, and nothing read as markup."""

import json

from artifact.manifest import Estimate
from cli.output import error_document, interval_of, make_table, open_console, talk, write_json
from tests.cli.command import Capture


def test_talk_goes_to_stderr_unbroken_and_as_it_is(capsys: Capture) -> None:
    talk("[red]" + "x " * 200, style="red")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "[red]" + "x " * 200 + "\n")


def test_json_goes_to_stdout_in_one_line_with_every_letter(capsys: Capture) -> None:
    write_json({"text": "caf\u00e9"})
    write_json(error_document("bad_input", "is empty"))
    first, second = capsys.readouterr().out.splitlines()
    assert first == '{"text": "caf\u00e9"}'
    assert json.loads(second) == {"error": {"code": "bad_input", "message": "is empty"}}


def test_a_table_keeps_brackets_and_without_headings_shows_none(capsys: Capture) -> None:
    open_console().print(make_table(["name", "accuracy [95%]"], [["one", "[bold]"]]))
    shown = capsys.readouterr().out
    assert "accuracy [95%]" in shown
    assert "[bold]" in shown
    open_console().print(make_table(["", ""], [["model", "tiny:1"]]))
    assert capsys.readouterr().out.split() == ["model", "tiny:1"]


def test_an_estimate_is_shown_with_its_interval() -> None:
    assert interval_of(Estimate(value=0.8, low=0.7, high=0.9)) == "0.800 [0.700, 0.900]"
