"""Where the command line meets people's mistakes: every verb's errors become one line, a bug keeps its traceback."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from alpamayo_r1.core.mistakes import PACKAGE, is_for_people

_Usage: Any = typer.BadParameter.mro()[2]  # typer's base of all complaints about what was typed


class Verbs(TyperGroup):
    """The command line: what was typed wrongly is reported as `error: ...` too."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Runs the command line and leaves with its exit code; standalone_mode False: returns the code instead."""
        print_what_fits()
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except _Usage as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(str(error), err=True)
                code = 2
            else:
                context = getattr(error, "ctx", None)
                more = f"\nsee `{context.command_path} --help`" if context is not None else ""
                typer.secho(f"error: {visible(error.format_message())}{more}", fg="red", err=True)
                code = error.exit_code
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


class Verb(TyperCommand):
    """A verb: its errors teach, its warnings are one line each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What was typed, unless an option that takes one value was given twice: the first value would be lost."""
        options: dict[str, Any] = {
            name: option for option in self.params for name in (*option.opts, *option.secondary_opts) if name.startswith("-")
        }
        given, words = set[Any](), iter(args)
        for word in words:
            option = options.get(word.partition("=")[0])
            if word == "--":
                break
            if option is None or option.multiple:
                continue
            if option.name in given:
                raise typer.BadParameter(f"'{visible(word)}' was given twice: give it once", ctx=ctx)
            given.add(option.name)
            if not option.is_flag and "=" not in word:
                next(words, None)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Calls the verb's function."""
        with teaching(ctx.params.get("out")), warnings.catch_warnings():
            warnings.showwarning = show_warning
            return super().invoke(ctx)


@contextmanager
def teaching(out: Path | None = None) -> Iterator[None]:
    """Errors a person can act on are printed without a traceback, exit code 2; anything else is a bug and keeps its traceback.

    A TypeError or KeyError is a person's only where a `raise` of this package made it. out: where the verb writes, named when the system
    names no file.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        place = error.filename if error.filename is not None else out
        where = f"{place}: " if place is not None else ""
        fail(f"{where}{error.strerror or error}; check the path, its rights and the room on the disk")
    except MemoryError as error:
        fail(str(error) or "this machine is out of memory: ask for fewer samples, clips or pixels at once")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            fail(f"the GPU is out of memory: ask for fewer samples, or free it of other processes ({str(error).splitlines()[0]})")
        if not is_for_people(error):
            raise
        fail(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))


def explained(error: Exception) -> str:
    """An error as people read it; one that nobody foresaw with its class."""
    return visible(str(error) if is_for_people(error) or isinstance(error, OSError) else f"{type(error).__name__}: {error}")


def show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """A warning for people as one line; other libraries' as Python writes them."""
    if issubclass(category, UserWarning) and Path(filename).is_relative_to(PACKAGE):
        typer.secho(f"warning: {message}", fg="yellow", err=True)
    elif sys.stderr is not None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def print_what_fits() -> None:
    """Lets the output show "?" for signs that its encoding lacks (the locale C knows ASCII alone), where it would fail."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def visible(text: str) -> str:
    """Text with its control characters written out, so that what was typed can't steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: repr(found.group())[1:-1], text)


def fail(text: str) -> NoReturn:
    """Prints an error; exit code 2."""
    typer.secho(f"error: {visible(text)}", fg="red", err=True)
    raise typer.Exit(2) from None
