"""Stage 12 as processes: killed and started again, ranks, tasks of a job array."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from dump_builder import make_dump
from powsm_command import POWSM, run_verb
from tiny_model import make_experiment, make_tokens

from powsm.cli.options import device
from powsm.errors import PowsmError

N_UTTS = 60


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on the number of threads, and torchrun allows each process one."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage12")
    folder = make_dump(root / "dump/test", [0.5 + i / 50 for i in range(N_UTTS)])
    make_experiment(root, make_tokens(folder, root / "tokens"))
    # two utterances a batch, each searched to its length limit
    (root / "decode_slow.yaml").write_text(
        "decode: joint\nbatch_seconds: 2\n"
        "search: {beam_size: 4, ctc_weight: 0.3, maxlenratio: 1.0}\n"
    )
    return root


def arguments(corpus, out, *more):
    return [
        *("--exp", str(out), "--model", str(corpus / "exp")),
        *("--dump", str(corpus / "dump"), "--sets", "test", "--device", "cpu"),
        *("--profiles", str(corpus / "decode_slow.yaml"), *more),
    ]


def run(corpus, out, *more):
    """Run the verb in this process; the bytes of its result, if it has one."""
    run_verb("decode", *arguments(corpus, out, *more))
    made = result(out) / "hyp.jsonl"
    return made.read_bytes() if made.exists() else None


def result(out):
    return out / "decode_slow/test/pr_joint"


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("whole"))


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(corpus, whole, tmp_path):
    process = subprocess.Popen(
        [*POWSM, "decode", *arguments(corpus, tmp_path)],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    n_done = 0
    while n_done < N_UTTS // 4 and process.poll() is None:
        n_done = sum(
            part.read_bytes().count(b"\n")
            for part in result(tmp_path).glob("part.*.jsonl")
        )
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (part,) = result(tmp_path).glob("part.*.jsonl")
    left = part.read_bytes().splitlines()
    assert N_UTTS // 4 <= len(left) < N_UTTS, process.stderr.read().decode()
    assert not (result(tmp_path) / "hyp.jsonl").exists()
    assert run(corpus, tmp_path) == whole
    assert not list(result(tmp_path).glob("part.*"))


def test_another_language_in_the_prompts_is_decoded_again(corpus, tmp_path):
    shutil.copytree(corpus / "dump/test", tmp_path / "dump/test")
    profile = tmp_path / "decode_fast.yaml"
    profile.write_text("decode: ctc\n")
    how = arguments(corpus, tmp_path, "--dump", str(tmp_path / "dump"))
    how += ["--profiles", str(profile)]
    run_verb("decode", *how)
    hyp = tmp_path / "decode_fast/test/pr_ctc/hyp.jsonl"
    assert "<eng>" in hyp.read_text()
    for name in ("text", "utt2lang"):
        path = tmp_path / "dump/test" / name
        text = path.read_text().replace(" eng\n", " spa\n")
        path.write_text(text.replace("<eng>", "<spa>"))
    run_verb("decode", *how)
    assert "<eng>" not in hyp.read_text()


def test_audio_that_was_cut_anew_under_its_name_is_decoded_again(corpus, tmp_path):
    folder = tmp_path / "dump/test"
    profile = tmp_path / "decode_fast.yaml"
    profile.write_text("decode: ctc\n")
    how = arguments(corpus, tmp_path, "--dump", str(tmp_path / "dump"))
    how += ["--profiles", str(profile)]
    for seconds in ([0.5, 0.5], [0.5, 0.7]):
        shutil.rmtree(folder, ignore_errors=True)
        make_dump(folder, seconds)
        run_verb("decode", *how)
        hyp = tmp_path / "decode_fast/test/pr_ctc/hyp.jsonl"
        rows = map(json.loads, hyp.read_text().splitlines())
        assert [row["seconds"] for row in rows] == seconds


def test_two_processes_of_torchrun_give_the_bytes_of_one(corpus, whole, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc_per_node", "2", "-m", "powsm.cli.main", "decode"]
    subprocess.run(
        [*torchrun, *arguments(corpus, tmp_path)],
        check=True,
        capture_output=True,
    )
    assert (result(tmp_path) / "hyp.jsonl").read_bytes() == whole


def test_more_ranks_than_gpus_are_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device("cuda") == device(None) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device("cpu") == "cpu"
    for wanted in ("cuda", None):
        with pytest.raises(PowsmError, match="--device cuda:2: PyTorch finds 2 GPUs"):
            device(wanted)


def test_shards_of_a_job_array_are_merged_once_all_are_there(corpus, whole, tmp_path):
    assert run(corpus, tmp_path, "--shards", "1/3") is None
    run(corpus, tmp_path, "--shards", "0/3")
    with pytest.raises(SystemExit, match="20 of 60 utterances are missing"):
        run(corpus, tmp_path, "--merge")
    run(corpus, tmp_path, "--shards", "2/3")
    assert run(corpus, tmp_path, "--merge") == whole


def without(module, *how):
    """Run a verb in a process that cannot import a module; what it says."""
    program = "import sys; sys.modules[sys.argv.pop(1)] = None\n"
    program += "from powsm.cli.main import main; main()"
    command = [sys.executable, "-c", program, module, *how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_pytorch_is_loaded_to_decode_and_its_compiler_never(corpus, tmp_path):
    """Each is seconds, of a stage that may find all as it should be."""
    profile = tmp_path / "decode_fast.yaml"
    profile.write_text("decode: ctc\n")
    how = arguments(corpus, tmp_path, "--profiles", str(profile))
    hyps = tmp_path / "decode_fast/test/pr_ctc"
    without("torch._dynamo", "decode", *how)
    assert len((hyps / "hyp.jsonl").read_bytes().splitlines()) == N_UTTS
    assert f"{hyps} is current\n" in without("torch", "decode", *how)
    without("torch._dynamo", "align-set", *how)
    assert len(list((hyps / "align").glob("*.TextGrid"))) == N_UTTS
