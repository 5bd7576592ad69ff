"""The command line: reads arguments, calls one verb, prints its result. Nothing is computed here.

Importing this loads no torch; each command imports its verb when it runs. Results go to stdout, progress and
errors to stderr; `--json` prints one object (one line a row for `predict`). The commands stand in a file for each
family, what their arguments mean in `arguments`, what is printed in `printing`, and how far a verb is in `progress`.
"""

import sys
from typing import Annotated

import typer

from endwise.cli import answer, audit, declare, deliver, judge, learn, machine
from endwise.cli.printing import complain, print_json
from endwise.errors import EndwiseError

EPILOG = "Exit codes: 0 done, 2 recipe, 3 data, 4 setup, 5 model, 6 training, 7 export, 130 Ctrl-C, 143 SIGTERM, 1 a bug of ours."

app = typer.Typer(
    name="endwise",
    help="Raw data in, final answers out: one network, one objective, one loop.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# in the order of --help
app.command()(declare.init)
app.command()(declare.check)
app.command()(learn.advise)
app.command()(learn.compare)
app.command()(learn.train)
app.command()(learn.reproduce)
app.command()(judge.evaluate)
app.command()(answer.predict)
app.command()(judge.explain)
app.command()(judge.report)
app.command()(judge.card)
app.command()(deliver.export)
app.command()(answer.search)
app.command(cls=deliver.Serve)(deliver.serve)
app.command()(declare.schema)
app.command()(machine.clean)
app.command()(machine.doctor)
app.add_typer(audit.commands, name="audit")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import endwise

        typer.echo(f"endwise {endwise.__version__}")
        raise typer.Exit
    del debug  # read by main() before the parser runs


def main() -> None:
    """The entry point: errors as their message, never a traceback without --debug."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except EndwiseError as wrong:
        if debug:
            raise
        if "--json" in sys.argv:
            print_json({"error": {"type": type(wrong).__name__, "message": str(wrong), "exit_code": wrong.exit_code}})
        complain(str(wrong))
        sys.exit(wrong.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as bug:
        if debug:
            raise
        complain(
            f"a bug of ours: {type(bug).__name__}: {bug}. Fix: run it again with --debug and report what it prints."
        )
        sys.exit(1)
