"""The click group. A command is a module of this package, imported only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping

import click

import joulescope

COMMANDS: Mapping[str, str] = {
    "serve": "Measure a running vLLM and serve the result.",
    "relay": "Read the GPUs of a worker node for the sidecar at the head.",
    "demo": "Run the whole path on a simulated GPU and engine.",
    "top": "Show live figures of a running sidecar in the terminal.",
    "record": "Write a trace file from the live path.",
    "replay": "Run a trace file through the same accounting.",
    "parse": "Print the raw records of a trace or a captured stream.",
    "diagnose": "Tell why tokens cost more or less in one window than in another.",
    "plan": "Foresee what an engine could serve, how fast and at what price.",
    "estimate": "Estimate the joules of a query where no meter is.",
    "ledger": "Ask a ledger: joules, money and carbon by tenant, model, LoRA, task.",
    "baseline": "Make, show, compare and pin what work used to cost.",
    "compare": "Lay runs side by side at the same load, and benchmarks of others.",
    "inject": "Put joulescope beside the vLLM of Kubernetes manifests.",
    "hook": "Put the hook where an image of vLLM finds it.",
    "doctor": "Tell what is wrong here, and what mends it.",
    "config": "Show where each setting comes from.",
}
"""One line of help for each command; the module ``joulescope.cli.<name>`` holds it as ``command``."""


class LazyGroup(click.Group):
    """Lists commands without importing them: ``joulescope --help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if importlib.util.find_spec(f"joulescope.cli.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"joulescope.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(joulescope.__version__, message="joulescope %(version)s")
def group() -> None:
    """Ask a vLLM server where its joules went: energy for every request, live."""
