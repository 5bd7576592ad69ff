"""Handing a trained model on: as a bundle that runs without torch, or as a server."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endwise.cli.arguments import AsJson, Log, RunPath, told
from endwise.cli.printing import note, print_json, print_result

if TYPE_CHECKING:
    from endwise.serve.version import Version


def export(
    run: RunPath,
    out: Annotated[str | None, typer.Option(help="The bundle's folder; default RUN/export.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX bundle, the one kind there is.")] = True,
    as_json: AsJson = False,
) -> None:
    """One bundle: graph with preprocessing and decoding inside, contract, golden examples, a runner without torch."""
    from endwise.export import export_run

    del onnx
    print_result(export_run(run, out=out, progress=None if as_json else note), as_json=as_json)


class Serve(typer.core.TyperCommand):
    """Its help says the defaults, which stand where the options are meant; looked up when they are asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from endwise.serve.options import defaults

        said = defaults()
        for item in self.params:
            if item.name in said and isinstance(item, typer.core.TyperOption):
                item.default = said[item.name]
        super().format_help(ctx, formatter)


def serve(
    run: Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A run, its model/ folder, or an exported bundle.")],
    host: Annotated[
        str | None, typer.Option(help="Where to listen; another than this machine's own needs --token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="0: any that is free.")] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="ENDWISE_TOKEN", help="Ask for it on every route; better given by the variable."),
    ] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Requests that may wait; beyond it 503.")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Rows answered at once.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout-s", help="Of one request.")] = None,
    drain_s: Annotated[float | None, typer.Option("--drain-s", help="For what was taken, after SIGTERM.")] = None,
    p99_ms: Annotated[
        float | None, typer.Option("--p99-ms", help="Refuse at once what could not be answered in this time.")
    ] = None,
    max_body_mb: Annotated[float | None, typer.Option("--max-body-mb", help="Of one request.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Of one picture.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of a batch's arithmetic; as many batches run side by side as have cores for theirs."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Take over a new version as soon as it is in the folder.")
    ] = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Answer raw files and JSON over HTTP, as predict does; until SIGTERM, and not before all is answered."""
    from endwise.serve import serve as run_serve
    from endwise.serve.body import Limits
    from endwise.serve.options import Options

    def ready(url: str, version: "Version") -> None:
        if as_json:
            print_json({"url": url, "model": version.id}, line=True)
            sys.stdout.flush()
        else:
            note(f"{version}\nanswers at {url}/predict; what it takes is said at {url}/openapi.json")

    asked = {
        "host": host, "port": port, "token": token, "queue": queue, "max_batch": max_batch, "timeout_s": timeout_s,
        "drain_s": drain_s, "p99_ms": p99_ms, "threads": threads, "log": log,
    }  # fmt: skip
    limits = {"body_bytes": None if max_body_mb is None else int(max_body_mb * 2**20), "pixels": max_pixels}
    options = Options(watch=watch, limits=Limits(**told(limits)), **told(asked))
    run_serve(run, options, ready=ready)
