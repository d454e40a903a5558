"""The page of `powsm demo`: bounds, what it shows, and the server over HTTP."""

import html
import json
import os
import re
import socket
import sys
import time
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dump_builder import make_dump
from tiny_model import make_experiment, make_tokens

import powsm
from powsm.audio import AudioError
from powsm.decode.align_files import Segment
from powsm.decode.profile import DecodeError
from powsm.decode.recordings.result import Result
from powsm.report.demo import server
from powsm.report.demo.bench import USUAL, Bench, Spoken, weak_lines
from powsm.report.demo.heard import heard_page

WEAK = "# x\n\n## What is weak\n\n- a: PER 71 %.\n- few utterances.\n\n## Y\n- no\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(root, make_tokens(root / "train", root / "tokens"))
    (exp / "RESULTS.md").write_text(WEAK)
    return powsm.load(exp, "cpu")


def put(path, seconds, rate=16_000):
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate))
    soundfile.write(path, samples, rate)
    return str(path)


def data_of(page):
    found = re.search(r'id="data">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def test_recording_is_bounded(tmp_path):
    bench = Bench({}, max_s=2)
    spoken = bench.hear(put(tmp_path / "a b.wav", 2.0, 44_100))
    assert spoken.name == "a b" and spoken.seconds == pytest.approx(2.0, abs=0.001)
    with pytest.raises(AudioError, match="long.wav: longer than the 2 s that"):
        bench.hear(put(tmp_path / "long.wav", 2.1))
    (tmp_path / "no.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match="no.wav"):
        bench.hear(str(tmp_path / "no.wav"))


def test_long_recording_is_not_read_to_its_end(tmp_path, monkeypatch):
    """A small file may hold hours."""
    read = []

    def blocks(location, channel):
        for number in range(1000):
            read.append(number)
            yield np.zeros(16_000, np.float32)

    monkeypatch.setattr("powsm.report.demo.bench.speech_blocks", blocks)
    with pytest.raises(AudioError, match="longer than the 3 s"):
        Bench({}, max_s=3).hear("x.opus")
    assert len(read) == 4


def test_page_shows_what_was_heard_and_asks_for_nothing():
    result = Result(
        text="pa</script>",
        phones=("p", "a"),
        lang="ita",
        score=-1.0,
        segments=(Segment("p", 0.1, 0.2, 0.9), Segment("a", 0.2, 0.5, 0.8)),
        pieces=(),
        duration_s=0.6,
        name="x",
        task="pr",
        slashed="/p//a/",
        profile="",
        weights="",
    )
    speech = np.random.default_rng(0).normal(0, 0.1, 9600).astype(np.float32)
    words = replace(
        result, task="asr", text="words", phones=(), segments=(), lang="unk"
    )
    page = heard_page(Spoken("x", speech), [("A", result), ("B", words)])
    data = data_of(page)
    phones, other = data["sides"]
    assert phones["times"] == [["p", 0.1, 0.2, 0.9], ["a", 0.2, 0.5, 0.8]]
    assert phones["told"] == "Italian" and other["told"] == "no language"
    assert other["times"] == [] and other["text"] == "words"
    assert data["phones"]["p"].startswith("voiceless bilabial plosive: -syl -son")
    assert 'text = "p"' in phones["files"]["TextGrid"]
    assert json.loads(phones["files"]["json"])["phones"] == ["p", "a"]
    assert data["clip"]["audio"].startswith("data:audio/mpeg;base64,")
    assert page.count("</script>") == 2 and "default-src 'none'" in page
    addresses = set(re.findall(r"https?://[^\"'\s]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nobody opens


def test_choices_are_those_of_the_models(model):
    bench = Bench({"x": model})
    assert [name for _, name in bench.tasks()] == ["asr", "pr", "g2p", "p2g"]
    codes = [code for _, code in bench.languages()]
    known = {token.strip("<>") for token in model.recogniser.languages()} - {"unk"}
    assert codes[:2] == ["unk", "auto"] and set(codes[2:]) == known != set()
    assert list(bench.ways()) == [USUAL, "ctc_greedy", "attention", "joint"]
    two = Bench({"x": model, "y": model}, ["ctc_greedy"]).ways()
    assert list(two) == [f"x: {USUAL}", "x: ctc_greedy", f"y: {USUAL}", "y: ctc_greedy"]


def test_profiles_of_one_name_are_refused(model, tmp_path):
    """One of them would be missing on the page."""
    files = []
    for folder, decode in (("a", "ctc"), ("b", "attention")):
        files.append(tmp_path / folder / "decode_mine.yaml")
        files[-1].parent.mkdir()
        files[-1].write_text(f"decode: {decode}\n")
    with pytest.raises(DecodeError, match="decode_mine.yaml: mine is named twice"):
        Bench({"x": model}, files).ways()


def test_way_hears_what_the_library_hears(model, tmp_path):
    path = put(tmp_path / "talk.wav", 1.5)
    bench = Bench({"x": model})
    heard = bench.transcribe(bench.hear(path), USUAL, "pr", "unk", "left over")
    expected = model(path)
    assert heard == expected and heard.name == "talk"
    said = bench.transcribe(bench.hear(path), "attention", "g2p", "ita", "pa")
    assert said == model(path, task="g2p", lang="ita", text="pa", profile="attention")


def test_weak_is_what_the_results_say(model, tmp_path):
    assert weak_lines(model.files) == ["a: PER 71 %.", "few utterances."]
    packed = tmp_path / "exp" / "name" / "config.yaml"
    packed.parent.mkdir(parents=True)
    files = replace(model.files, config_file=packed)
    assert weak_lines(files) == []
    (tmp_path / "RESULTS.md").write_text(WEAK.replace("71", "9"))
    assert weak_lines(files)[0] == "a: PER 9 %."


def test_page_without_gradio_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(server.DemoError, match=r"pip install 'powsm\[demo\]'"):
        with server.serving(Bench({})):
            pass


def test_server_hears_and_keeps_nothing(model, tmp_path):
    """Over HTTP, as a browser does it: upload, choose, read; then nothing is left."""
    gradio_client = pytest.importorskip("gradio_client")
    pytest.importorskip("gradio")
    path = put(tmp_path / "talk.wav", 1.5)
    long, big = put(tmp_path / "long.wav", 2.5), put(tmp_path / "big.wav", 5.0)
    broken = str(tmp_path / "broken.wav")
    Path(broken).write_bytes(Path(path).read_bytes()[:20] + b"no sound" * 20)
    before = os.environ.get("GRADIO_TEMP_DIR")
    with server.serving(
        Bench({"x": model}, max_s=2), port=free_port(), max_mb=0.1
    ) as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert url.startswith("http://127.0.0.1:")
        client = gradio_client.Client(url, verbose=False, analytics_enabled=False)
        *_, shown = client.predict(gradio_client.handle_file(path), api_name="/hear")
        assert data_of(html.unescape(shown))["seconds"] == 1.5
        ask = ("pr", "unk", "", USUAL, "attention")
        shown = client.predict(*ask, api_name="/transcribe")
        first, second = data_of(html.unescape(shown))["sides"]
        assert first["text"] == model(path).text
        assert second["text"] == model(path, profile="attention").text
        assert left_in(folder) == []
        said = client.predict("g2p", *ask[1:], api_name="/transcribe")
        assert 'role="alert"' in said and "g2p reads a text prompt" in said
        *_, said = client.predict(gradio_client.handle_file(broken), api_name="/hear")
        assert '"alert">broken.wav: ' in said and str(folder) not in said
        *_, said = client.predict(gradio_client.handle_file(long), api_name="/hear")
        assert 'role="alert"' in said and "longer than the 2 s" in said
        with pytest.raises(Exception, match="413|size"):
            client.predict(gradio_client.handle_file(big), api_name="/hear")
        assert left_in(folder) == []
        said = client.predict(*ask, api_name="/transcribe")
        assert "first a recording" in said  # the last one could not be used
        assert client.config["analytics_enabled"] is False
        client.close()
    assert not folder.exists() and os.environ.get("GRADIO_TEMP_DIR") == before


def test_server_removes_what_visitors_abandon(model, tmp_path, monkeypatch):
    """A page that is closed during an upload or before its file was heard."""
    pytest.importorskip("gradio")
    monkeypatch.setattr(server, "_ABANDONED_S", 0.5)
    monkeypatch.setattr(server, "_LOOK_S", 0.1)
    with server.serving(Bench({"x": model}), port=free_port()) as url:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        whole = half_sent(url, b"sound" * 1000, whole=True)
        answer = HTTPResponse(whole)
        answer.begin()
        assert Path(json.loads(answer.read())[0]).is_relative_to(folder)
        cut = half_sent(url, b"sound" * 1000)
        wait_for(lambda: any(p.parent == folder for p in files_in(folder)))
        cut.close()
        assert left_in(folder) == [] and list(folder.iterdir()) == []
        monkeypatch.setattr(server, "_ABANDONED_S", 60.0)
        cut = half_sent(url, b"sound" * 1000)
        wait_for(lambda: files_in(folder))
        # and the server ends while it waits for the rest
    assert not folder.exists()
    cut.close()
    whole.close()


def test_uploads_of_killed_servers_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed = tmp_path / "powsm-demo-of_a_killed_one" / "0af" / "talk.wav"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"sound")
    other = tmp_path / "powsm-demo"
    other.mkdir()
    with server._uploads() as first:
        assert sorted(tmp_path.iterdir()) == sorted([other, first])
        with server._uploads() as second:
            assert first.exists() and second.exists()
    assert list(tmp_path.iterdir()) == [other]


def half_sent(url, content, *, whole=False):
    """A connection over which a file is uploaded, to its middle or to its end."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(body) if whole else 2 * len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    port = int(url.rstrip("/").rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(head.encode() + body)
    return connection


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def left_in(folder):
    """The files of a folder, once what is on its way out is gone."""
    wait_for(lambda: not files_in(folder))
    return files_in(folder)


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def wait_for(happens):
    """Wait until something is so, or half a minute."""
    for _ in range(300):
        if happens():
            break
        time.sleep(0.1)
