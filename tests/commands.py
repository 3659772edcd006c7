"""Commands as a user types them, for the tests of the command line."""

from __future__ import annotations

from typer.testing import CliRunner

from shapleaf import cli

MODEL = "shapleaf.demo:network"


def run(*words: object) -> str:
    """Invoke in this process; errors come through as exceptions."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
