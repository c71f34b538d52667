"""Warnings: a line on the stderr of the moment."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from harness.config.warnings import warn, warn_once


def test_a_warning_is_a_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    warn("100 % of it")
    warn("100 % of it")
    assert capfd.readouterr() == ("", "warning: 100 % of it\n" * 2)


def test_a_warning_goes_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    for number, stderr in enumerate((first, second)):
        monkeypatch.setattr(sys, "stderr", stderr)
        warn(f"message {number}")
    assert first.getvalue() == "warning: message 0\n"
    assert second.getvalue() == "warning: message 1\n"


def test_the_same_message_is_printed_once_if_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for text in ("asked for once", "asked for once", "another text", "asked for once"):
        warn_once(text)
    assert capsys.readouterr().err == "warning: asked for once\nwarning: another text\n"


def test_handlers_of_others_do_not_print_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    others = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(others)
    try:
        warn("for one reader")
    finally:
        logging.getLogger().removeHandler(others)
    assert capsys.readouterr().err == "warning: for one reader\n"
