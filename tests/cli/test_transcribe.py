"""`powsm transcribe`: what it reads, what it writes, and what it refuses."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from dump_builder import make_dump
from powsm_command import run_verb
from praatio import textgrid
from tiny_model import make_experiment, make_tokens

import powsm
from powsm.cli.recordings.paths import sources_of, targets_of
from powsm.decode.recordings.result import ENDINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("transcribe")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_experiment(root, make_tokens(root / "train", root / "tokens"))


@pytest.fixture(scope="module")
def model(exp):
    return powsm.load(exp)


@pytest.fixture
def here(exp, tmp_path, monkeypatch):
    """An empty working folder, with the model in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWSM_MODEL", str(exp))
    return tmp_path


@pytest.fixture
def say(capsys):
    """Run `powsm transcribe`; its lines on standard output."""

    def run(*arguments):
        run_verb("transcribe", "--device", "cpu", *arguments)
        return capsys.readouterr().out.splitlines()

    return run


def noise(seconds=1.0, seed=0, n_channels=1):
    samples = np.random.default_rng(seed).normal(
        0, 0.1, (int(seconds * 16_000), n_channels)
    )
    return samples if n_channels > 1 else samples[:, 0]


def put(path, samples=None, rate=16_000, **how):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise() if samples is None else samples, rate, **how)
    return path


def test_one_recording_is_a_line_of_ipa(here, say, model):
    put("talk.wav")
    heard = model("talk.wav")
    assert say("talk.wav") == [heard.text]
    assert say("--slashes", "talk.wav") == [heard.slashed]
    assert sorted(p.name for p in here.iterdir()) == ["talk.wav"]


def test_several_recordings_are_named_and_keep_their_order(here, say, model):
    for name, seconds in (("b.wav", 0.5), ("a.wav", 2), ("c.flac", 1)):
        put(name, noise(seconds))
    lines = say("b.wav", "a.wav", "c.flac", "a.wav")
    assert lines == [
        f"{name}\t{model(name).text}" for name in ("b.wav", "a.wav", "c.flac")
    ]


def test_standard_input_is_a_recording(here, say, model, monkeypatch):
    data = put("talk.wav").read_bytes()
    stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert say("-") == [model("talk.wav").text]


def test_folders_are_mirrored_and_names_kept(here, say):
    put("in/ភាសា ខ្មែរ/a b.ogg")
    put("in/x/y/c.WAV", format="WAV")
    put("in/x/d.mp3", format="MP3")
    Path("in/x/notes.md").write_text("no recording")
    put("in/.hidden/e.wav")
    say("--format", "textgrid", "--out", "out", "in")
    written = sorted(str(p.relative_to("out")) for p in Path("out").rglob("*.*"))
    assert written == ["x/d.TextGrid", "x/y/c.TextGrid", "ភាសា ខ្មែរ/a b.TextGrid"]
    grid = textgrid.openTextgrid("out/x/y/c.TextGrid", True)
    assert grid.maxTimestamp == 1.0


def test_done_ones_are_skipped_unless_forced(here, say, caplog):
    put("a.wav")
    put("b.wav", noise(0.5))
    Path("a.json").write_text("mine")
    caplog.set_level("INFO")
    say("--format", "json", "a.wav", "b.wav")
    assert Path("a.json").read_text() == "mine"
    assert "1 of 2 are done, with these options or others, or have a" in caplog.text
    assert "; --force writes over them" in caplog.text
    assert "older" not in caplog.text
    os.utime("a.json", (1, 1))
    say("--format", "json", "a.wav")
    assert (
        "1 of them are older than their recording or text, such as a.js" in caplog.text
    )
    assert json.loads(Path("b.json").read_text())["duration_s"] == 0.5
    say("--format", "json", "--force", "a.wav", "b.wav")
    assert json.loads(Path("a.json").read_text())["duration_s"] == 1.0


@pytest.mark.parametrize("form", ENDINGS)
def test_every_format_has_its_file(here, say, model, form):
    put("a.wav")
    say("--format", form, "a.wav")
    (written,) = set(here.iterdir()) - {here / "a.wav"}
    assert written.stem == "a"
    assert written.read_text(encoding="utf-8") == model("a.wav").to(form)


def test_channels_are_mixed_or_taken_apart(here, say, model):
    both = noise(n_channels=2)
    put("two.wav", both, 16_000, subtype="FLOAT")
    left, right = (model(both[:, c].astype(np.float32)).text for c in (0, 1))
    assert say("two.wav") == [model(both.mean(1).astype(np.float32)).text]
    assert say("--channel", "left", "two.wav") == [left]
    lines = say("--channel", "each", "two.wav")
    assert lines == [f"two.wav left\t{left}", f"two.wav right\t{right}"]
    say("--channel", "each", "--format", "txt", "two.wav")
    assert Path("two.left.txt").read_text() == left + "\n"
    assert Path("two.right.txt").read_text() == right + "\n"


@pytest.mark.parametrize(("n_channels", "first"), [(2, "left"), (3, "1")])
def test_channels_of_a_recording_are_done_together(here, say, model, n_channels, first):
    samples = noise(n_channels=n_channels)
    put("a.wav", samples, 16_000, subtype="FLOAT")
    how = ("--channel", "each", "--format", "txt", "a.wav")
    say(*how)
    files = sorted(here.glob("*.txt"))
    heard = [model(one.astype(np.float32)).text + "\n" for one in samples.T]
    assert [path.read_text() for path in files] == heard
    for path in files:
        path.write_text("kept")
    say(*how)  # all are there
    assert {path.read_text() for path in files} == {"kept"}
    Path(f"a.{first}.txt").unlink()  # as after a kill
    say(*how)
    assert sorted(here.glob("*.txt")) == files


def test_channel_and_recording_of_one_file_are_not_written_over_each_other(
    here, say, caplog
):
    put("in/talk.wav", noise(n_channels=2))
    put("in/talk.left.wav")
    how = ("--channel", "each", "--format", "json", "--out", "o", "in")
    for _ in range(2):  # the file of the other says nothing of what is done
        with pytest.raises(SystemExit, match="1 of 2 recordings could not be used"):
            say(*how)
    fault = "a channel of it and in/talk.left.wav would both be o/talk.left.json"
    assert caplog.text.count(fault) == 2
    assert [p.name for p in Path("o").iterdir()] == ["talk.left.json"]


def test_channels_have_names_and_are_known_when_they_are_older(here, say, caplog):
    put("talk.wav", noise(n_channels=2))
    how = ("--channel", "each", "--format", "json", "talk.wav")
    say(*how)
    names = [json.loads(Path(f"talk.{s}.json").read_text()) for s in ("left", "right")]
    assert [row["utt_id"] for row in names] == ["talk.left", "talk.right"]
    os.utime("talk.left.json", (1, 1))
    say(*how)
    said = "older than their recording or text, such as talk.left.json"
    assert said in caplog.text


def test_recordings_of_one_name_are_told_apart_in_results(here, say):
    for name in ("in/a.wav", "in/a.flac", "in/sub/a.wav", "in/b.wav"):
        put(name)
    say("--format", "json", "--out", "o", "in")
    rows = [json.loads(path.read_text()) for path in sorted(Path("o").rglob("*.json"))]
    found = {row["utt_id"] for row in rows}
    assert found == {"in/a.flac", "in/a.wav", "b", "in/sub/a.wav"}


def test_text_that_is_too_long_for_the_windows_leaves_the_others_alone(
    here, say, caplog
):
    """What fits the windows that are asked for is no matter, also above 20 s."""
    for name, seconds in (("long", 3), ("short", 1)):
        put(f"in/{name}.wav", noise(seconds))
        Path(f"in/{name}.txt").write_text("pe ah")
    how = ("--task", "g2p", "--out", "o", "--overlap_s", "0.5")
    with pytest.raises(SystemExit, match="1 of 2 recordings could not be used"):
        say(*how, "--window_s", "2", "in")
    assert "long: the text of 3.0 s cannot be cut into pieces of 2 s" in caplog.text
    assert [p.name for p in Path("o").iterdir()] == ["short.txt"]
    put("longest.wav", noise(21))
    say(*how, "--window_s", "22", "--text", "pe ah", "longest.wav")
    assert Path("o/longest.txt").exists()


def test_windows_longer_than_the_profile_hears_are_refused(here, say):
    put("talk.wav")
    Path("paper.yaml").write_text("decode: attention\nwindow: published\n")
    with pytest.raises(SystemExit, match="hears 20 s and no more"):
        say("--profile", "paper.yaml", "--window_s", "30", "talk.wav")


def test_bad_recordings_are_named_and_the_others_done(here, say, caplog):
    put("good.wav")
    put("in/blip.wav", noise(0.03))
    Path("in/empty.wav").touch()
    Path("in/text.wav").write_text("this is no sound")
    with pytest.raises(SystemExit) as end:
        say("--out", "out", "good.wav", "in", "absent.wav")
    assert end.value.code == (
        "powsm transcribe: error: 4 of 5 recordings could not be used, see above"
    )
    for name in ("in/blip.wav", "in/empty.wav", "in/text.wav", "absent.wav"):
        assert len([m for m in caplog.messages if name in m]) == 1
    assert [p.name for p in Path("out").rglob("*.*")] == ["good.txt"]


def test_text_beside_a_recording_prompts_it(here, say, model):
    for name in ("a.wav", "b.wav"):
        put(name)
    Path("a.txt").write_text("one")
    Path("b.txt").write_text("two")
    lines = say("--task", "g2p", "a.wav", "b.wav")
    texts = [model("a.wav", task="g2p", text=t).text for t in ("one", "two")]
    assert lines == [f"a.wav\t{texts[0]}", f"b.wav\t{texts[1]}"]
    assert say("--task", "g2p", "--text", "two", "a.wav") == [texts[1]]


@pytest.mark.parametrize("out", ["absolute", "link"])
def test_texts_that_prompt_are_not_replaced_by_another_name_of_their_folder(
    here, say, out
):
    put("in/talk.wav")
    Path("in/talk.txt").write_text("pe ah")
    os.symlink("in", "link")
    out = here / "in" if out == "absolute" else out
    with pytest.raises(SystemExit, match="is the text that g2p reads"):
        say("--task", "g2p", "--out", out, "--force", "in")
    assert Path("in/talk.txt").read_text() == "pe ah"


def test_silence_is_trimmed_when_asked_and_times_stay_those_of_the_file(here, say):
    silence = np.zeros(16_000)
    put("talk.wav", np.concatenate([silence, noise(), silence]))
    say("--trim_silence", "--format", "textgrid", "talk.wav")
    grid = textgrid.openTextgrid("talk.TextGrid", True)
    assert grid.maxTimestamp == 3.0
    rows = [entry for entry in grid.getTier("phones").entries if entry.label]
    assert rows and all(0.97 <= row.start < row.end <= 2.03 for row in rows)


@pytest.mark.parametrize("task", ["pr", "asr"])
def test_a_click_in_silence_is_named_and_ends_no_other(here, say, caplog, task):
    """What is left of it is shorter than a frame: all of the call was lost."""
    click = np.zeros(32_000)
    click[16_000] = 0.5
    put("click.wav", click)
    put("talk.wav", noise())
    with pytest.raises(SystemExit, match="1 of 2 recordings could not be used"):
        say("--trim_silence", "--task", task, "--out", "o", "click.wav", "talk.wav")
    assert "click.wav without its silence: 0.045 s is too short" in caplog.text
    assert os.listdir("o") == ["talk.txt"]


@pytest.mark.parametrize("asked", ["p a", "/p//a/", "p,a", "few.txt", "t.csv:ita"])
def test_phones_that_are_asked_for_alone_come_out(here, say, asked):
    put("talk.wav", noise(3))
    Path("few.txt").write_text("p a")
    Path("t.csv").write_text(
        "ISO6393,Phoneme,SegmentClass\nita,p,consonant\nita,a,vowel\nita,˥,tone\n"
        "deu,b,consonant\n"
    )
    (line,) = say("--phones", asked, "--slashes", "talk.wav")
    assert set(line.split("/")) <= {"", " ", "p", "a"}


def test_phones_that_are_named_by_nothing_are_no_permission_for_all(here, say):
    put("talk.wav", noise(3))
    with pytest.raises(SystemExit, match="phones: none are named"):
        say("--phones", "", "talk.wav")


def test_names_that_differ_in_their_ending_keep_it():
    sources = sources_of(["a.wav", "a.mp3", "b.wav"])
    names = [str(path) for path in targets_of(sources, Path("o"), ".txt").values()]
    assert names == ["o/a.wav.txt", "o/a.mp3.txt", "o/b.txt"]


def test_done_recordings_survive_a_kill_in_the_middle(here, say, monkeypatch):
    """Ctrl-C while the second group is decoded: the first group's files are whole."""
    for name in ("a.wav", "b.wav", "c.wav"):
        put(name)
    monkeypatch.setattr("powsm.decode.recordings.model.GROUP_FILES", 1)
    from powsm.decode.recordings.model import Model

    answer, n = Model.answer, []

    def interrupted(self, question, jobs, **how):
        n.append(jobs[0].utt_id)
        if len(n) == 2:
            raise KeyboardInterrupt
        return answer(self, question, jobs, **how)

    monkeypatch.setattr(Model, "answer", interrupted)
    with pytest.raises(SystemExit) as end:
        say("--format", "json", "a.wav", "b.wav", "c.wav")
    assert end.value.code == 130
    assert sorted(p.name for p in here.iterdir() if p.suffix != ".wav") == ["a.json"]
    say("--format", "json", "a.wav", "b.wav", "c.wav")
    assert n == ["a", "b", "b", "c"]


def put_m4a(path, samples, rate):
    """AAC in MP4, which FFmpeg alone opens."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(
            samples.astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def test_a_phoneticians_folder_is_one_command(here, say, model, monkeypatch, caplog):
    """Ten recordings as they lie about; killed in the middle, and called again."""
    both = noise(1.0, n_channels=2)
    put("in/1 stereo.wav", np.repeat(both, 3, axis=0)[:44_100], 44_100)
    put("in/ភាសា ខ្មែរ.flac", noise(seed=1))
    put("in/day 2/c.ogg", noise(seed=2))
    put("in/day 2/d.MP3", noise(seed=3), format="MP3")
    put_m4a("in/e.m4a", noise(seed=4), 16_000)
    put("in/f (1).wav", noise(seed=5)[:8_000], 8_000)
    put("in/g'h\"i.aiff", noise(seed=6))
    put("in/silent.wav", np.zeros(16_000))
    put("in/long.wav", noise(45, seed=7))
    data = put("in/broken.flac", noise(seed=8)).read_bytes()
    Path("in/broken.flac").write_bytes(data[: len(data) // 2])
    monkeypatch.setattr("powsm.decode.recordings.model.GROUP_FILES", 2)
    load_model = "powsm.cli.recordings.transcribe.load_model"
    monkeypatch.setattr(load_model, lambda options: model)
    answer, decoded = type(model).answer, []

    def counted(self, question, jobs, **how):
        if len(decoded) == 4:
            decoded.append("killed")
            raise KeyboardInterrupt
        decoded.extend(job.utt_id for job in jobs)
        return answer(self, question, jobs, **how)

    monkeypatch.setattr(type(model), "answer", counted)
    how = ("--format", "textgrid", "--out", "out", "in")
    with pytest.raises(SystemExit) as end:
        say(*how)
    assert end.value.code == 130
    assert len(list(Path("out").rglob("*.TextGrid"))) == 4
    with pytest.raises(SystemExit, match="1 of 10 recordings could not be used"):
        say(*how)
    assert [m for m in caplog.messages if "in/broken.flac: " in m]
    decoded.remove("killed")
    assert len(decoded) == len(set(decoded)) == 9, "each is decoded once"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    recordings = [p for p in Path("in").rglob("*.*") if p.name != "broken.flac"]
    assert len(recordings) == len(list(Path("out").rglob("*.*"))) == 9
    for path in recordings:
        written = Path("out", path.relative_to("in")).with_suffix(".TextGrid")
        assert written.read_text() == model(path).to("textgrid"), path
        grid = textgrid.openTextgrid(str(written), False)
        assert [tier.name for tier in grid.tiers] == ["phones"]
