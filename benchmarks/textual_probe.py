"""What ``benchmarks/terminal.py`` compares the terminal view with: the same figures as a Textual application.

    python benchmarks/textual_probe.py URL

Runs in an environment of its own with Textual and nothing else of ours. It shows power, engines and the
running requests, read once a second by a worker thread, in the widgets that one would take.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

from textual import work
from textual.app import App, ComposeResult
from textual.widgets import DataTable, Footer, Static

COLUMNS = ("request", "phase", "age", "prompt", "output", "J", "J/token", "pre")
ROWS = 60


class Probe(App[None]):
    BINDINGS = (("q", "quit", "quit"), ("s", "sort", "sort"))

    def compose(self) -> ComposeResult:
        yield Static("asking", id="head")
        yield DataTable(id="requests")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(DataTable).add_columns(*COLUMNS)
        self.set_interval(1.0, self.read)
        self.read()

    @work(thread=True, exclusive=True)
    def read(self) -> None:
        pages = []
        for page in ("snapshot", "requests"):
            with urllib.request.urlopen(f"{sys.argv[1]}/api/{page}", timeout=5) as answer:
                pages.append(json.load(answer))
        self.call_from_thread(self.show, *pages)

    def show(self, snapshot: dict[str, Any], requests: dict[str, Any]) -> None:
        gpus = [
            f"{gpu['info']['gpu']} {gpu['reading']['power_watts']} W" for gpu in snapshot["snapshot"]["gpus"]
        ]
        engines = [f"{each['info']['engine']} {each['running']}" for each in snapshot["snapshot"]["engines"]]
        self.query_one("#head", Static).update("\n".join([*gpus[:4], *engines[:4]]))
        table = self.query_one(DataTable)
        table.clear()
        for each in requests["open"][:ROWS]:
            joules = each["attributed_joules"] or 0.0
            table.add_row(
                each["request_id"],
                each["phase"],
                f"{(requests['time_ns'] - each['start_ns']) / 1e9:.1f}s",
                str(each["prompt_tokens"]),
                str(each["output_tokens"]),
                f"{joules:.2f}",
                f"{joules / max(each['output_tokens'], 1):.3f}",
                str(each["preemptions"]),
            )


if __name__ == "__main__":
    Probe().run()
