"""The page of `powsm demo` by Gradio, served to this machine alone.

Nothing is kept: a recording is taken from the disk into memory as soon as it is there,
and its file is removed two seconds later; in memory it stays until another takes its
place, the page is closed, or ten minutes have passed. What nobody asks about, because
a page was closed during or after an upload, is removed a minute after its last byte;
the end of the server removes all, and its next start what a killed one left. Nothing is
sent elsewhere: no statistics, no fonts, no link.
"""

import fcntl
import html
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from powsm.errors import PowsmError
from powsm.report.demo.bench import Bench, Spoken
from powsm.report.demo.heard import heard_page
from powsm.tasks import PHONES, TASKS, plain_task

ADDRESS = "127.0.0.1"
KEPT_S = 600  # seconds that a recording stays in memory
_DRAWN_S = 2.0  # seconds in which the box may still ask for the file, to draw it
_ABANDONED_S = 60.0  # since the last byte of a file that nobody asked about
_LOOK_S = 5.0  # between two looks for such files
_UPLOADS = "powsm-demo-"  # beginning of the name of the folder that files come to
_NOTHING = "nothing"  # instead of a second way
_MOST_WAITING = 20  # requests in line
_FONTS = ("system-ui", "Segoe UI", "Noto Sans", "DejaVu Sans", "sans-serif")


class DemoError(PowsmError):
    """The page cannot be served; the message says what to do."""


@contextmanager
def serving(bench: Bench, *, port: int | None = None, max_mb: float = 20) -> Iterator:
    """Serve the page; gives its address.

    Args:
        bench: the models.
        port: of `ADDRESS`; None: the first free one from 7860 on.
        max_mb: the largest file that is taken.

    Raises:
        DemoError: Gradio is missing, or the port is taken.
    """
    with _uploads() as folder:
        gr = _gradio()
        page = _page(gr, bench, folder)
        page.queue(max_size=_MOST_WAITING, default_concurrency_limit=1)
        try:
            _, url, _ = page.launch(
                server_name=ADDRESS,
                server_port=port,
                max_file_size=int(max_mb * 1e6),
                state_session_capacity=_MOST_WAITING,
                theme=gr.themes.Default(font=_FONTS, font_mono=("monospace",)),
                prevent_thread_lock=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                quiet=True,
                footer_links=[],
            )
        except OSError as err:
            raise DemoError(f"{ADDRESS}:{port or ''}: {err}; choose by --port") from err
        try:
            yield url
        finally:
            page.close(verbose=False)


@contextmanager
def _uploads() -> Iterator[Path]:
    """A folder for files on their way, which is removed, as those of killed servers."""
    for old in Path(tempfile.gettempdir()).glob(f"{_UPLOADS}*"):
        with suppress(OSError), _in_use(old):  # an error: a server is at work in it
            shutil.rmtree(old)
    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix=_UPLOADS) as name, _in_use(Path(name)):
        folder, end = Path(name), threading.Event()
        looking = threading.Thread(target=_look, args=(folder, end), daemon=True)
        looking.start()
        os.environ.update(dict(zip(names, (name, "False"), strict=True)))
        try:
            yield folder
        finally:
            end.set()
            looking.join()
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Mark a folder as in use, which the system undoes when the process is killed.

    Raises:
        OSError: it is in use.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _look(folder: Path, end: threading.Event) -> None:
    """Remove abandoned uploads, whole ones and parts, until the end."""
    while not end.wait(_LOOK_S):
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                age_s = time.time() - path.stat().st_mtime
                if path.is_file() and age_s > _ABANDONED_S:
                    _remove(path, folder)


def _gradio():
    try:
        with warnings.catch_warnings():  # of pydub, which looks for an ffmpeg
            warnings.simplefilter("ignore", RuntimeWarning)
            import gradio
    except ImportError as err:
        raise DemoError(
            f"the page needs Gradio ({err}): pip install 'powsm[demo]'"
        ) from err
    return gradio


def _page(gr, bench: Bench, folder: Path):
    ways = list(bench.ways())
    tasks = bench.tasks()
    with gr.Blocks(title="POWSM", analytics_enabled=False) as page:
        gr.Markdown(f"# POWSM\n{', '.join(bench.models)}")
        with gr.Row():
            recording = gr.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                label=f"A recording of at most {bench.max_s:g} s",
            )
            with gr.Column():
                task = gr.Radio(tasks, value=_first(tasks), label="Task")
                lang = gr.Dropdown(bench.languages(), value="unk", label="Language")
                text = gr.Textbox(label="What is said", visible=False)
                first = gr.Dropdown(ways, value=ways[0], label="Decoded by")
                second = gr.Dropdown(
                    [_NOTHING, *ways], value=_NOTHING, label="And beside it by"
                )
                start = gr.Button("Transcribe", variant="primary")
        kept = gr.State(None, time_to_live=KEPT_S)
        shown = gr.HTML()
        with gr.Accordion("What it is bad at", open=True):
            gr.Markdown(_weak(bench))
        _wire(gr, bench, folder, recording, kept, shown, task, text, start)
        start.click(
            lambda *asked: _answer(bench, *asked),
            [kept, task, lang, text, first, second],
            shown,
            api_name="transcribe",
        )
    return page


def _first(tasks: list[tuple[str, str]]) -> str:
    """The task that is chosen at first: phones of the sound alone, if there."""
    names = [name for _, name in tasks]
    return plain_task(PHONES) if plain_task(PHONES) in names else names[0]


def _wire(gr, bench, folder, recording, kept, shown, task, text, start) -> None:
    """What happens when a recording is there, and when a task is chosen."""

    def hear(location: str | None):
        # the box is empty afterwards: its file is gone
        if location is None:
            return None, None, _alert("no recording came")
        try:
            spoken = bench.hear(location)
        except PowsmError as err:
            own_name = str(err).replace(location, Path(location).name)
            return None, None, _alert(own_name)
        finally:
            remove = threading.Timer(_DRAWN_S, _remove, (Path(location), folder))
            remove.daemon = True
            remove.start()
        return spoken, None, _framed(heard_page(spoken, []))

    how = {"outputs": [kept, recording, shown], "api_name": "hear"}
    gr.on([recording.upload, recording.stop_recording], hear, recording, **how)

    def ask_for_text(name: str):
        reads = TASKS[name].reads
        label = "IPA that is said" if reads == PHONES else "Words that are said"
        return gr.update(visible=TASKS[name].is_prompted, label=label)

    task.change(ask_for_text, task, text, api_visibility="private")


def _answer(bench: Bench, spoken: Spoken | None, *asked: str) -> str:
    task, lang, text, first, second = asked
    if spoken is None:
        return _alert("first a recording: a file, or the microphone")
    ways = [way for way in (first, second) if way != _NOTHING]
    try:
        heard = [
            (way, bench.transcribe(spoken, way, task, lang, text))
            for way in dict.fromkeys(ways)
        ]
    except PowsmError as err:
        return _alert(err)
    return _framed(heard_page(spoken, heard))


def _alert(fault: object) -> str:
    return f'<p role="alert">{html.escape(str(fault))}</p>'


def _framed(page: str) -> str:
    """A page within the page, whose styles and scripts are its own."""
    style = "width: 100%; border: 0; height: 16rem"
    title = "What was heard"
    inside = html.escape(page)
    return f'<iframe title="{title}" style="{style}" srcdoc="{inside}"></iframe>'


def _remove(path: Path, folder: Path) -> None:
    """Remove an upload with the folder that it came in."""
    path = path.resolve()
    if path.is_relative_to(folder.resolve()):
        path.unlink(missing_ok=True)
        if path.parent != folder.resolve():
            shutil.rmtree(path.parent, ignore_errors=True)


def _weak(bench: Bench) -> str:
    parts = []
    for name, lines in bench.weak().items():
        found = "\n".join(f"- {line}" for line in lines)
        nothing = "No RESULTS.md lies beside this model: nobody says."
        parts.append(f"**{name}**\n\n{found or nothing}")
    return "\n\n".join(parts)
