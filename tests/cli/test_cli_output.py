"""Progress of a long reading goes to stderr, and a short one is silent."""

import pytest

from quadmix.cli.output import bytes_watched


def test_a_long_reading_says_how_far_it_is_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with bytes_watched("verify", after=0.0) as watch:
        watch(250, 1000)
        watch(1000, 1000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "verify: 0/1,000 bytes" in captured.err
    assert "verify: 1,000/1,000 bytes (100%)" in captured.err


def test_a_short_reading_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bytes_watched("verify") as watch:
        watch(1000, 1000)
    assert capsys.readouterr() == ("", "")
