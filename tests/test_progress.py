"""A bar is seen where standard error is a terminal, and nowhere else."""

import io
import sys

import pytest

from jaxnas.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def written(monkeypatch, stream, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(**options) as bar:
        task = bar.add_task("trials", total=8)
        bar.update(task, completed=3)
    return stream.getvalue()


def test_a_terminal_shows_what_is_done_and_what_is_left(monkeypatch):
    text = written(monkeypatch, Terminal())
    assert "trials" in text and "3/8" in text and "left" in text


@pytest.mark.parametrize(
    "stream, shown", [(io.StringIO(), True), (Terminal(), False)], ids=["file", "off"]
)
def test_elsewhere_nothing_is_written(monkeypatch, stream, shown):
    assert written(monkeypatch, stream, shown=shown) == ""
