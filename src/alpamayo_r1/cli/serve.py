"""`alpamayo-r1 serve` and `view`: the service, and the page in a browser. Heavy imports happen inside the verbs."""

from __future__ import annotations

import secrets
import threading
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpamayo_r1.cli.options import Checkpoint, Data, Device, Fast, Memory, Precision, maybe_text, place, text, whole
from alpamayo_r1.cli.progress import Meter, metered
from alpamayo_r1.core.notes import NoteWarning

if TYPE_CHECKING:
    from alpamayo_r1.serve.door import Door

Host = Annotated[str, typer.Option(callback=text, help="Address to listen on; any but this machine's own needs a token.")]
Port = Annotated[int, whole(0, 65535, "Port to listen on; 0: a free one.")]
Token = Annotated[
    str | None,
    typer.Option(
        callback=maybe_text, envvar="ALPAMAYO_TOKEN", help="What requests must carry (default: none on loopback, else a fresh one)."
    ),
]
Evaluations = Annotated[
    list[Path] | None, typer.Option("--evaluation", parser=place, metavar="FOLDER", help="Folder of an `eval` to show; repeat for several.")
]
Waiting = Annotated[int, whole(1, 10_000, "Requests that may wait; the next ones get 503 with Retry-After.")]


def serve(
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    evaluation: Evaluations = None,
    waiting: Waiting = 16,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    memory: Memory = None,
) -> None:
    """Serve plans over HTTP: clips, plans, questions, streams, evaluations, and a page to play with. Describes itself at /docs."""
    start(checkpoint, data, host, port, token, evaluation or [], waiting, Machine(device, fast, precision, memory), browse=False)


def view(
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    evaluation: Evaluations = None,
    waiting: Waiting = 16,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    memory: Memory = None,
) -> None:
    """Look at plans in a browser: scrub, play, compare samples, and type a reason to see the path bend."""
    start(checkpoint, data, host, port, token, evaluation or [], waiting, Machine(device, fast, precision, memory), browse=True)


@dataclass(frozen=True)
class Machine:
    """What plans, and how: as the arguments of `load`."""

    device: str
    fast: bool | None
    precision: str | None
    memory: float | None


def start(
    checkpoint: str,
    data: str,
    host: str,
    port: int,
    token: str | None,
    evaluations: list[Path],
    waiting: int,
    machine: Machine,
    *,
    browse: bool,
) -> None:
    """Listens, and serves until interrupted; clips are opened and the model is loaded meanwhile.

    Raises:
        ValueError: the extra is not installed, or what was given does not fit. OSError: the address is taken.
    """
    missing = [name for name in ("fastapi", "uvicorn", "websockets") if find_spec(name) is None]
    if missing:
        raise ValueError(f"serving needs {', '.join(missing)}: pip install 'alpamayo-r1[serve]'")

    from alpamayo_r1.core.config import read_config
    from alpamayo_r1.core.hub import checkpoint_folder
    from alpamayo_r1.serve.evaluations import check_evaluations
    from alpamayo_r1.serve.guard import is_loopback
    from alpamayo_r1.serve.run import listening, run

    check_evaluations(evaluations)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    with ExitStack() as opened, listening(host, port) as at:
        config = read_config(checkpoint_folder(checkpoint))

        def build(door: Door) -> None:
            from alpamayo_r1.data.source import open_source
            from alpamayo_r1.planner import load, pick_devices
            from alpamayo_r1.serve.app import make_app
            from alpamayo_r1.serve.model import Model
            from alpamayo_r1.serve.queue import Limits

            source = opened.enter_context(open_source(data))
            model, limits = Model(config, pick_devices(machine.device)[0]), Limits(waiting=waiting)
            app = make_app(model, source, name=shown(checkpoint), token=token, limits=limits, evaluations=evaluations)
            door.open(app, app.state.service.close)
            try:
                with metered(Meter(f"loading {checkpoint}", None, "")):
                    model.put(load(checkpoint, **asdict(machine)))
            except BaseException as error:
                model.fail(error)
                raise
            warnings.filterwarnings("ignore", category=NoteWarning)  # from here on plans carry their notes

        shown_host = f"[{host}]" if ":" in host else host
        url = f"http://{shown_host}:{at.getsockname()[1]}/" + ("" if token is None else f"#token={token}")

        def ready() -> None:
            typer.echo(f"open {url}  (Ctrl+C ends it; /docs describes the service)")
            if browse:
                import webbrowser

                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        run(build, token, at, ready)


def shown(checkpoint: str) -> str:
    """A checkpoint's name as others may see it: of a folder its last part alone."""
    return Path(checkpoint).name if Path(checkpoint).exists() else checkpoint
