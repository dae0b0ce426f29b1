"""``joulescope ledger compact``: few large files of many small ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone

import click

from joulescope.cli.ledger_print import print_note, shown
from joulescope.ledger.compaction import TARGET_BYTES, Compacted, compact


@click.command()
@click.argument("root")
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DAY",
    help="Only days before this one, in UTC.  [default: today]",
)
@click.option(
    "--max-mebibytes",
    type=click.IntRange(1, 65_536),
    default=TARGET_BYTES >> 20,
    show_default=True,
    help="How large a file may become; those above half of it stay as they are.",
)
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compact_command(
    root: str, before: datetime | None, max_mebibytes: int, dry_run: bool, as_json: bool
) -> None:
    """Put the files of each day together that is over.

    ROOT is the folder or the URL where the ledger is kept. Rows stay exactly as they are, and are read back
    before a file goes. Sidecars may write meanwhile, and commands may read. If it is killed nothing is lost,
    and the next run does the rest. See docs/ledger.md.
    """
    today = datetime.now(timezone.utc).date()
    day = today if before is None else min(before.date(), today)
    done = compact(root, day, max_mebibytes << 20, dry=dry_run)
    if not any(table.files_found for table in done.values()):
        print_note(f"{root} holds no files of a ledger yet; is it the place that the setting ledger names?")
    for table in done.values():
        for path, reason in table.left_out:
            print_note(f"left out: {path}: {reason}")
    if as_json:
        tables = {name: asdict(table) for name, table in done.items()}
        click.echo(
            json.dumps({"root": root, "before": day.isoformat(), "dry_run": dry_run, "tables": tables})
        )
        return
    for name, table in done.items():
        click.echo(f"{name}: {_told(table, dry_run)}")


def _told(done: Compacted, dry: bool) -> str:
    if not done.files_before:
        told = "nothing to put together"
    else:
        told = f"{shown(done.files_before)} files of {shown(done.days)} days "
        told += f"{'would become' if dry else 'became'} {shown(done.files_after)}"
        if not dry:
            told += f", {shown(done.rows)} rows, {_size(done.bytes_before)} before and "
            told += f"{_size(done.bytes_after)} after"
    if done.removed_files:
        told += f"; {shown(done.removed_files)} that an earlier run had replaced are removed"
    return told


def _size(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
