"""This machine: what the prepared store holds, what is installed and what it can do."""

import time
from typing import Annotated

import typer

from endwise.cli.arguments import AsJson
from endwise.cli.printing import print_json, print_result, size


def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove every prepared field that is not in use.")] = False,
    unused_days: Annotated[float | None, typer.Option(help="Remove what was not used for so many days.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """What the prepared store holds; --all or --unused-days removes it (it is decoded again when needed)."""
    from endwise.data import store

    if everything or unused_days is not None:
        removed = store.clean(unused_days=unused_days)
        if as_json:
            print_json(removed.to_dict())
        else:
            typer.echo(
                f"removed {removed.removed} fields, {size(removed.freed_bytes)}; {removed.in_use} in use were left"
            )
        return
    used = store.usage()
    if as_json:
        print_json(used.to_dict())
        return
    for entry in used.entries:
        days = (time.time() - entry.last_used) / 86_400
        typer.echo(f"{size(entry.bytes):>10}  {entry.rows:>9,} rows  {days:5.1f} days ago  {entry.about}")
    typer.echo(f"{size(used.bytes):>10}  of {size(used.cap_bytes)} in {used.root}")


def doctor(as_json: AsJson = False) -> None:
    """What is installed, what an extra would add, and what this machine can do."""
    from endwise.doctor import examine

    print_result(examine(), as_json=as_json)
