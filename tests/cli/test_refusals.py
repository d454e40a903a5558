"""Bad input to every command that is a stage, or looks at what stages made.

One line, the right status, and nothing written. Recordings and models in hand are in
`test_bad_inputs.py`, shards and audio of a corpus in `recipe/test_bad_input.py`, and
single settings in `train/test_settings.py`.
"""

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from dump_builder import make_dump as make_train_dump
from experiment_builder import PHONES, make_dump, write_hyps
from powsm_command import run_verb
from shar_builder import make_cut, write_shard
from tiny_model import SETTINGS, make_experiment, make_tokens

from powsm.files.lock import owned

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
RESULT = "exp/decode_ctc_greedy/test_tone/pr_ctc"
CUTS = [
    make_cut(f"c{n}", n_samples=16_000, language="it", text="il cane", ipa="il kane")
    for n in range(4)
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A folder in which every stage has run, on next to nothing."""
    root = tmp_path_factory.mktemp("recipe")
    for split in ("train", "dev"):
        write_shard(root / "downloads/asterisk_shar" / split, CUTS)
    before = Path.cwd()
    os.chdir(root)
    try:
        for program in ("prepare_data.py", "prepare_dump.py"):
            assert call([program])[0] == 0
    finally:
        os.chdir(before)
    shutil.rmtree(root / "dump")
    for seed, name in enumerate(("train", "dev")):
        make_train_dump(
            root / "dump/raw" / name,
            [0.6, 0.8, 1.0, 0.7, 0.9, 1.1, 0.5, 1.2],
            seed=seed + 1,
        )
    test_set = make_dump(root / "dump/raw")
    shutil.copy(test_set / "text", test_set / "text.ctc")
    prompts = [line.split()[0] for line in open(test_set / "text")]
    (test_set / "text.prev").write_text("".join(f"{p} <na>\n" for p in prompts))
    record = (root / TEST_NORMALISER).read_text()
    tokens = make_tokens(root / "dump/raw/train", root / "tokens")
    make_experiment(root, tokens)
    for name in ("dump/raw/train", "dump/raw/dev", "exp"):
        (root / name / "normaliser.json").write_text(record)
    (root / "train.yaml").write_text(yaml.safe_dump(SETTINGS))
    (root / "global.yaml").write_text(
        yaml.safe_dump(SETTINGS | {"normalize": "global_mvn"})
    )
    np.savez(root / "stats.npz", count=9, sum=np.ones(80), sum_square=np.ones(80))
    texts = {key: "".join(f"/{p}/" for p in row[2]) for key, row in PHONES.items()}
    write_hyps(root / "exp", "decode_ctc_greedy", "test_tone", "pr_ctc", texts)
    os.chdir(root)
    try:
        assert call("score-exp --exp exp --dump dump/raw".split())[0] == 0
    finally:
        os.chdir(before)
    (root / "ok.yaml").write_text("{}")
    return root


@pytest.fixture
def here(recipe, tmp_path, monkeypatch):
    work = tmp_path / "work"
    shutil.copytree(recipe, work, symlinks=True, copy_function=os.link)
    monkeypatch.chdir(work)
    for name in ("RANK", "WORLD_SIZE", "HF_TOKEN", "POWSM_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # no network
    return work


def call(words: list[str]) -> tuple[int, str]:
    """Status of a command in this process, and its last line."""
    before, stderr = sys.argv, io.StringIO()
    sys.argv = list(words)
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stderr):
            if words[0].endswith(".py"):
                runpy.run_path(str(ROOT / "local" / words[0]), run_name="__main__")
            else:
                run_verb(*words)
    except SystemExit as end:
        if isinstance(end.code, str):
            return 1, end.code
        return end.code or 0, (stderr.getvalue().splitlines() or [""])[-1]
    finally:
        sys.argv = before
    return 0, ""


def harm(path: Path, how: object) -> None:
    """None removes, a number cuts off, an object becomes JSON, bytes stay bytes."""
    was = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)  # another name of it is the file of all tests
    if how is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(how, int):
        path.write_bytes(was[:how])
    elif callable(how):
        path.write_bytes(how(was))
    else:
        path.write_bytes(how if isinstance(how, bytes) else json.dumps(how).encode())


def state() -> dict[str, tuple[int, ...]]:
    """All files but logs and hidden ones, such as an index of a dump folder."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
        for path in Path().rglob("*")
        if path.is_file()
        and path.name != "train.log"
        and not any(part.startswith(".") for part in path.parts)
    }


TRAIN = "train --config train.yaml --dump dump/raw --token_dir tokens --exp exp/new"
MEANS = f"{TRAIN} --stats stats.npz".replace("train.yaml", "global.yaml")
AGAIN = "train --config train.yaml --dump dump/raw --token_dir tokens --exp exp"
STATS = "stats --dump dump/raw/train --config train.yaml --out new"
GREEDY = f"--profiles {CONF}/decode_ctc_greedy.yaml"
DECODE = f"decode --exp exp --dump dump/raw --sets test_tone --device cpu {GREEDY}"
OTHER = f"{DECODE} --profiles p.yaml"
ALIGN = f"align-set --exp exp --dump dump/raw --sets test_tone --device cpu {GREEDY}"
SCORE = "score-exp --exp exp --dump dump/raw"
REPORT = "report --exp exp --dump dump/raw"
PACK = "pack --exp exp --dump dump/raw"
TOKENS = "tokens --dump_set dump/raw/train --out new --nbpe 60"
ABLATE = "ablate --dump dump/raw --token_dir tokens --out new --plan"
CHECK = "check --config train.yaml --stage 11 --stop_stage 11 --costs ok.yaml"
NO_PROCESS = "'0', expected a whole number of 1 or more"
DATA = "prepare_data.py --data new"
DUMP = "prepare_dump.py --dump new"

TEST_NORMALISER = "dump/raw/test_tone/normaliser.json"
TRAINED_ON = "exp/trained_on.json"
HISTORY, RESULTS = "exp/history.jsonl", "exp/results.json"
NORMALISER, SET_NORMALISER = "exp/normaliser.json", "dump/raw/train/normaliser.json"
EPOCH = {"epoch": 1, "updates": 3}

# what is done to which file; the command; words of the line that it ends with
CASES = [
    # --- settings files
    ({"train.yaml": None}, TRAIN, "train.yaml"),
    ({"train.yaml": b""}, TRAIN, "train.yaml: expected 'key: value' lines"),
    ({"train.yaml": b"[1"}, TRAIN, "train.yaml: not valid YAML"),
    ({"train.yaml": b"a: \xff"}, TRAIN, "train.yaml: not UTF-8 text"),
    ({"train.yaml": b"- a\n"}, STATS, "train.yaml: expected 'key: value' lines"),
    ({"train.yaml": b"base: none.yaml\n"}, TRAIN, "none.yaml: no such file"),
    ({"train.yaml": b"base: train.yaml\n"}, TRAIN, "as a base itself"),
    ({"train.yaml": b"base: [3]\n"}, TRAIN, "base"),
    ({"train.yaml": b"1: 2\n"}, TRAIN, "unknown key"),
    ({"train.yaml": b"!!python/object:a.b {}\n"}, TRAIN, "not valid YAML"),
    ({"train.yaml": b"without: [seed]\n"}, TRAIN, "without"),
    ({"train.yaml": b"without: 3\n"}, TRAIN, "without"),
    ({"train.yaml": b"a: &a [*a]\n"}, TRAIN, ""),
    ({}, f"{TRAIN} --set sedd=1", "did you mean 'seed'?"),
    ({}, f"{TRAIN} --set seed", "expected key.sub=value"),
    ({}, f"{TRAIN} --set seed=[", "not a YAML value"),
    ({}, f"{TRAIN} --set seed.a=1", "it has no keys below it"),
    ({}, f"{TRAIN} --set =1", "expected key.sub=value"),
    ({}, f"{TRAIN} --set optim_conf..lr=1", "optim_conf"),
    ({}, f"{TRAIN} --set optim_conf.lr=abc", "optim_conf.lr: 'abc'"),
    ({}, f"{TRAIN} --set max_epoch=-1", "max_epoch: -1, expected 1 or more"),
    ({}, f"{TRAIN} --set model=nothing", "model"),
    ({}, f"{TRAIN} --set model=[1]", "model"),
    ({}, f"{TRAIN} --set encoder={{a:1}}", "encoder"),
    ({}, f"{TRAIN} --set optim=[adam]", "optim"),
    ({}, f"{TRAIN} --set patience=3", "only ESPnet's own loop reads patience=3"),
    ({}, f"{TRAIN} --set iterator=published --trainer powsm", "ESPnet's own sampler"),
    ({}, f"{TRAIN} --set freeze_param=[nothing]", "no parameter has that name"),
    ({}, f"{TRAIN} --set init_param=[none.pth]", "none.pth"),
    ({"x.pth": b"text"}, f"{TRAIN} --set init_param=[x.pth]", "x.pth"),
    ({}, f"{TRAIN} --set ngpu=1", "ngpu is 1, but PyTorch finds no GPU"),
    ({}, f"{TRAIN} --set use_wandb=true", "the package wandb is not installed"),
    ({}, f"{TRAIN} --set preprocessor_conf.time_apply_prob=0.5", "time_apply_prob"),
    ({}, f"{TRAIN} --set encoder_conf.input_layer=conv7", "input_layer"),
    ({}, f"{TRAIN} --set frontend_conf.fs=8000", "fs"),
    ({}, f"{TRAIN} --trainer lightning", "invalid choice"),
    ({}, f"{TRAIN} --goes_on_from none", "no checkpoints"),
    ({}, f"{TRAIN} --goes_on_from none --trainer espnet", "of our own loop"),
    ({}, f"{TRAIN}{'x' * 250}", "bytes, expected 200"),
    # --- what training is given
    ({"tokens/tokens.txt": None}, TRAIN, "tokens/tokens.txt"),
    ({"tokens/tokens.txt": b""}, TRAIN, "no tokens; run stage 5 again"),
    ({"tokens/tokens.txt": b"\xff\n"}, TRAIN, "tokens.txt: not UTF-8"),
    ({"tokens/tokens.txt": lambda b: b + b"/p/\n"}, TRAIN, "token '/p/' is on line"),
    ({"tokens/tokens.txt": b"<blank>\n<unk>\n"}, TRAIN, "tokens.txt"),
    ({"tokens/bpe.model": None}, TRAIN, "bpe.model"),
    ({"tokens/bpe.model": b""}, TRAIN, "bpe.model"),
    ({"tokens/bpe.model": 50}, TRAIN, "bpe.model"),
    ({"tokens/bpe.model": b"text"}, TRAIN, "bpe.model"),
    ({"dump/raw/train": None}, TRAIN, "run stage 4"),
    ({"dump/raw/train/text.ctc": None}, TRAIN, "text.ctc: not found; run stage 4"),
    ({"dump/raw/train/text": b""}, TRAIN, "text: empty, or its last line has no end"),
    ({"dump/raw/train/text": 300}, TRAIN, "run stage 4 again"),
    ({"dump/raw/train/utt2num_samples": b"a b\n"}, TRAIN, "run stage 4 again"),
    ({"dump/raw/dev/text": lambda b: b.replace(b"_pr ", b"_xx ")}, TRAIN, "_xx"),
    ({SET_NORMALISER: b"{"}, AGAIN, "normaliser.json: damaged"),
    ({}, MEANS.replace("--stats stats.npz", ""), "run stage 10"),
    ({"stats.npz": b""}, MEANS, "stats.npz"),
    ({"stats.npz": 100}, MEANS, "stats.npz"),
    ({"stats.npz": b"text"}, MEANS, "stats.npz"),
    # --- an experiment that is trained
    ({}, f"{AGAIN} --set seed=2", "seed 1, now 2"),
    ({}, f"{AGAIN} --dry_run --set ngpu=1", "PyTorch finds no GPU"),
    ({NORMALISER: b"{"}, AGAIN, f"{NORMALISER}: damaged"),
    ({NORMALISER: []}, AGAIN, f"{NORMALISER}: expected an object"),
    ({HISTORY: b"{"}, AGAIN, f"{HISTORY}:1: damaged"),
    ({HISTORY: {"epoch": 3}}, AGAIN, f"{HISTORY}:1: no updates in it"),
    ({HISTORY: {"epoch": "x", "updates": 1}}, AGAIN, "epoch is no number"),
    ({HISTORY: {"epoch": 9, "updates": 1}}, AGAIN, "but 9 epochs are done"),
    ({TRAINED_ON: b"x"}, AGAIN, "trained_on.json: damaged"),
    ({TRAINED_ON: {"digests": {"training set": "0"}}}, AGAIN, "training set"),
    ({TRAINED_ON: {"digests": 3}}, AGAIN, "trained_on.json"),
    ({"exp/config.yaml": b""}, AGAIN, "exp/config.yaml"),
    ({"exp/config.yaml": b"a: ["}, AGAIN, "exp/config.yaml"),
    ({"exp/checkpoints/step000000001.ckpt": b""}, AGAIN, "no checkpoint can be used"),
    ({"exp/checkpoints/step000000001.ckpt": b"x" * 99}, AGAIN, "step000000001.ckpt"),
    # --- statistics
    ({"dump/raw/train/wav.scp": None}, STATS, "wav.scp: not found; run stage 4"),
    ({}, f"{STATS} --stats_hours 0", "stats_hours"),
    ({}, f"{STATS} --stats_hours -1", "stats_hours"),
    ({}, f"{STATS} --stats_hours nan", "stats_hours"),
    ({}, f"{STATS} --seed -1", "seed"),
    # --- vocabulary
    ({}, f"{TOKENS} --nbpe 3", "--nbpe 3"),
    ({}, f"{TOKENS} --nbpe -3", "'-3', expected a whole number of 1 or more"),
    ({}, f"{TOKENS} --time_step_s 0", "time_step_s"),
    ({}, f"{TOKENS} --time_step_s=-1", "above 0"),
    ({}, f"{TOKENS} --time_step_s x", "time_step_s"),
    ({}, f"{TOKENS} --bpe_input_sentences 0", "bpe_input_sentences"),
    ({"dump/raw/train/text": None}, TOKENS, "text"),
    ({"dump/raw/train/text": b"\xff\n"}, TOKENS, "text"),
    ({"dump/raw/train/text": b"a_pr\n"}, TOKENS, "text"),
    ({}, "start-from --init_from none --dump_set dump/raw/train --out new", "none"),
    ({"exp/config.yaml": b"a: 1"},
     "start-from --init_from exp --dump_set dump/raw/train --out new", "config.yaml"),
    # --- decoding
    ({}, DECODE.replace("test_tone", "test_none"), "test_none"),
    ({}, f"{DECODE} mine/decode_ctc_greedy.yaml", "two of one name"),
    ({}, DECODE.replace("greedy", "greedly"), "greedly"),
    ({}, f"{DECODE} --shards 3/2", "is not like 0/16"),
    ({}, f"{DECODE} --merge", "utterances are missing"),
    ({}, f"{DECODE} --device cuda", "PyTorch finds 0 GPUs"),
    ({}, f"{DECODE} --device tpu", "expected cpu, cuda"),
    ({}, f"{DECODE} --model none", "none"),
    ({}, f"{DECODE} --model_file none.pth", "none.pth"),
    ({"exp/valid.loss.ave.pth": 5000}, DECODE, "valid.loss.ave.pth"),
    ({NORMALISER: {}}, DECODE, f"{NORMALISER}: no policy text_policy in it"),
    ({TEST_NORMALISER: b"["}, DECODE, "normaliser.json: damaged"),
    ({"dump/raw/test_tone/text.prev": None}, DECODE, "text.prev"),
    ({"p.yaml": b"decode: ctc\ndecode_conf: 3\n"}, OTHER, "p.yaml"),
    ({"p.yaml": b"search: 3\n"}, OTHER, "p.yaml"),
    ({"p.yaml": b"search: {beam_size: x}\n"}, OTHER, "beam_size"),
    ({"p.yaml": b"search: {beam_size: 0}\n"}, OTHER, "beam_size"),
    ({"p.yaml": b"search: {ctc_weight: 2}\n"}, OTHER, "ctc_weight"),
    ({"p.yaml": b"batch_seconds: -1\n"}, OTHER, "batch_seconds is -1"),
    ({"p.yaml": b"tasks: 3\n"}, OTHER, "tasks"),
    ({"p.yaml": b"tasks: [sing]\n"}, OTHER, "sing"),
    ({f"{RESULT}/hyp.jsonl": b"{"}, ALIGN, "hyp.jsonl:1: damaged"),
    ({f"{RESULT}/hyp.jsonl": None}, ALIGN, "hyp.jsonl"),
    ({}, "align-set --exp exp --dump dump/raw --sets test_tone --ref --profiles x",
     "not allowed with"),
    # --- scores and reports
    ({RESULT: None}, SCORE, "nothing is decoded in it"),
    ({f"{RESULT}/hyp.jsonl": b""}, SCORE, "tone_a_eng"),
    ({f"{RESULT}/hyp.jsonl": 100}, SCORE, "hyp.jsonl"),
    ({f"{RESULT}/hyp.jsonl": b"\xff\n"}, SCORE, "hyp.jsonl: damaged, not UTF-8"),
    ({f"{RESULT}/hyp.jsonl": {"utt_id": 3, "text": "a"}}, SCORE, "utt_id or text"),
    ({f"{RESULT}/hyp.jsonl": {"utt_id": "x", "text": "a"}}, SCORE, "x"),
    ({"dump/raw/test_tone": None}, SCORE, "test_tone"),
    ({"dump/raw/test_tone/ref.ipa": b""}, SCORE, "ref.ipa"),
    ({"dump/raw/test_tone/utt2num_samples": b"tone_a_eng_pr x\n"}, SCORE, "utt2num"),
    ({TEST_NORMALISER: {}}, SCORE, "no policy"),
    ({TEST_NORMALISER: {"policy": "x", "version": "x"}}, SCORE, "x"),
    ({}, f"{SCORE} --cleaning nothing", "invalid choice"),
    ({RESULTS: None}, REPORT, "run stage 13"),
    ({RESULTS: b"["}, REPORT, f"{RESULTS}: damaged"),
    ({RESULTS: []}, REPORT, "no scores in it"),
    ({RESULTS: {}}, REPORT, "expected a list"),
    ({RESULTS: [3]}, REPORT, "record 0 is 3, no object"),
    ({RESULTS: [{"set": "a"}]}, REPORT, "record 0 has no"),
    ({HISTORY: b"{}\n{"}, REPORT, f"{HISTORY}:1: no epoch updates"),
    ({f"{RESULT}/timing.json": b"{"}, REPORT, "timing.json: damaged"),
    ({f"{RESULT}/timing.json": {"audio_s": 1}}, REPORT, "no compute_s in it"),
    ({f"{RESULT}/timing.json": {"audio_s": "a", "compute_s": 1}}, REPORT, "audio_s is"),
    ({"exp/config.yaml": b"["}, REPORT, "config.yaml: not valid YAML"),
    ({}, "compare exp none --dump dump/raw", "none: no such folder"),
    ({"h": b"a pa\n"}, "score --hyp h --ref none", "none"),
    ({"h": b""}, "score --hyp h --ref h", "h: holds no transcript"),
    ({"h": b"a pa\na pa\n"}, "score --hyp h --ref h", "h:2: 'a' is given twice"),
    ({"h": b"\xff\xfea"}, "score --hyp h --ref h", "h: UTF-16 text"),
    ({"h.json": b"{"}, "score --hyp h.json --ref h.json", "h.json:1: not JSON"),
    ({"h": b"a pa\n", "r": b"b pa\n"}, "score --hyp h --ref r", "not the same"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --langs none", "none"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --max_unknown_rate 3", "from 0 to 1"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --metric x", "invalid choice"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --hyp_field pred",
     "h:1: plain text, which has no field pred"),
    ({"h.trn": b"pa (a)\n"}, "score --hyp h.trn --ref h.trn --ref_field ref",
     "h.trn:1: plain text"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --metric WER --cleaning prism",
     "--cleaning: not used, WER reads no phones"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --metric PER --text_policy released",
     "--text_policy: not used"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --metric accuracy --langs h",
     "--langs: not used"),
    ({"h": b"a pa\n"}, "score --hyp h --ref h --cleaning prism --max_unknown_rate 1",
     "--max_unknown_rate: not used"),
    ({}, f"reproduce --table 99 --conf {CONF}", "99"),
    ({}, "reproduce", ""),
    ({}, f"reproduce --table 4 --exp dump --conf {CONF}", "dump: no experiment"),
    ({}, f"reproduce --table 4 --seen a --g2p b --conf {CONF}",
     "--seen --g2p: not used"),
    ({}, f"reproduce --claims --any_training --conf {CONF}", "--any_training: not"),
    ({}, f"{ABLATE} none.yaml", "none"),
    ({"plan.yaml": b"3"}, f"{ABLATE} plan.yaml", "plan.yaml"),
    # --- publishing
    ({}, f"{PACK} --profiles a/decode_x.yaml b/decode_x.yaml", "two of one name"),
    ({"exp/valid.loss.ave.pth": None}, PACK, "no valid."),
    ({NORMALISER: None, SET_NORMALISER: b"{"}, PACK, "normaliser.json: damaged"),
    ({NORMALISER: None, SET_NORMALISER: {}}, PACK, "no policy text_policy in it"),
    ({}, f"{PACK} --profiles none.yaml", "none.yaml"),
    ({"dump/raw/test_tone/wav.scp": b""}, PACK, ""),
    ({}, "upload --folder none --hf_repo a/b", "none"),
    ({}, "upload --folder exp --hf_repo a", "a"),
    # --- stages 1 to 4
    ({}, f"{DATA} --downloads none", "none: no such folder; run stage 0"),
    ({}, f"{DATA} --nj 0", NO_PROCESS),
    ({}, f"{DATA} --nj -2", "nj"),
    ({}, f"{DATA} --skip_corpora asterisk", "run stage 0"),
    ({}, f"{DATA} --skip_corpora asterix", "asterix"),
    ({}, f"{DATA} --shards 5/4", "is not like 0/16"),
    ({}, f"{DUMP} --langs english", "did you mean eng?"),
    ({}, f"{DUMP} --langs ita,fra", "no utterance in data/train/utt2lang"),
    ({}, f"{DUMP} --tasks sing", "sing"),
    ({}, f"{DUMP} --tasks pr,pr", "pr"),
    ({}, f"{DUMP} --max_duration nan", "max_duration"),
    ({}, f"{DUMP} --min_duration 30", "no utterance left"),
    ({}, f"{DUMP} --max_unknown_rate 2", "max_unknown_rate"),
    ({}, f"{DUMP} --nj 0", NO_PROCESS),
    ({}, f"{DUMP} --sets none", "none"),
    ({}, f"{DUMP} --data none", "run stage 1 first"),
    ({"data/train/text": None}, f"{DUMP} --sets train", "data/train/text"),
    ({"data/train/text": b"\xff\n"}, f"{DUMP} --sets train", "data/train/text"),
    ({"data/train/text.ipa": 10}, f"{DUMP} --sets train", "text.ipa"),
    ({"data/train/utt2num_samples": b"x\n"}, f"{DUMP} --sets train", "utt2num_samples"),
    ({"data/train/prepare.json": b"{"}, "data_report.py --out new", "prepare.json"),
    ({}, "copy_audio.py --data none", "run stage 1 first"),
    ({}, "copy_audio.py --nj 0", "nj"),
    ({}, "copy_audio.py --sets none", "none"),
    ({}, "prepare_eval_set.py --set none", "none"),
    ({}, "prepare_eval_set.py --set timit --source none", "none"),
    ({}, "download_mini.py --corpora none", "none"),
    ({}, "download_mini.py --test_langs ru", "ru: no ISO 639-3 code; did you mean rus"),
    ({}, "download_mini.py --dev_langs ell,gr", "gr: no ISO 639-3 code"),
    ({}, "download_mini.py --dev_langs ell --test_langs rus,ell", "ell in both"),
    ({}, "download_ipapack.py --tries 0", NO_PROCESS),
    ({}, "download_ipapack.py --tries x", "'x', expected a whole number"),
    ({}, "download_ipapack.py --first_pause nan", "'nan', expected a number from 0"),
    ({}, "download_ipapack.py --first_pause -1", "first_pause"),
    ({}, "download_ipapack.py --source raw --repositories a/b", "--source: not used"),
    # --- recordings
    ({}, "lid --n_best 0 a.wav", NO_PROCESS),
    ({}, "lid --n_best 1.5 a.wav", "'1.5', expected a whole number"),
    ({}, "import none mine --ipa_tier b", "--ipa_tier: not used, there is no --tier"),
    ({}, "import none mine --split dev --seed 3", "--seed: not used, all go to dev"),
    # --- this machine
    ({}, f"{CHECK} --set sedd=1", "1 fault(s)"),
    ({"costs.yaml": b"x: 1"}, f"{CHECK} --costs costs.yaml", "costs.yaml"),
    ({}, f"{CHECK} --backend slurm --cluster none", "fault(s)"),
    ({}, "ranks --n 0 -- true", NO_PROCESS),
    ({}, "ranks --n x -- true", "'x', expected a whole number of 1 or more"),
    ({}, f"{CHECK} --tiny", "--tiny: not used, there is no --gpu"),
    ({}, "ranks --n 2", "a program behind --"),
    ({}, f"submit --cluster {CONF}/cluster/default.yaml --stage 2 --log new -- true",
     "stage 2 runs as no job"),
    ({}, "nosuchverb", "no verb 'nosuchverb'"),
    ({}, "submit --cluster none --stage 1 --log new -- true", "none"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("harms", "command", "message"),
    CASES,
    ids=[
        f"{n}-{' '.join(c.split()[:1])}-{m[:20]}" for n, (_, c, m) in enumerate(CASES)
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(here, harms, command, message):
    for name, how in harms.items():
        harm(here / name, how)
    before = state()
    status, said = call(command.split())
    print(status, said)
    is_usage = re.search(
        r": error: (argument|one of the arguments|the following|no verb)", said
    )
    assert status == (2 if is_usage else 1)
    assert said and "\n" not in said
    assert message in said
    assert state() == before


def test_table_of_what_a_run_ends_with_is_what_tests_see():
    """A line that a case above has, it has with its status; others are other tests'."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    rows = re.findall(r"\| (\d+) \| `(.+)` \|\n", page.partition("## What a run")[2])
    assert len(rows) > 25
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = tests.replace("\\", "")
    in_cases = {message for _, _, message in CASES}
    for status, line in rows:
        assert line in in_cases or line in tests, line
        is_usage = line in (NO_PROCESS, "invalid choice")
        assert int(status) == (
            2 if is_usage else 75 if line.startswith("no data") else 1
        )


@pytest.mark.parametrize(
    ("command", "held", "left"),
    [
        (SCORE, RESULTS, ("exp/.results.json.x.new", "exp/.results_by.csv.x.new")),
        (REPORT, "exp/report", ("exp/.RESULTS.md.x.new", "exp/images/.a.png.x.new")),
    ],
)
def test_stage_13_sweeps_its_own_and_is_refused_while_another_runs(
    here, command, held, left
):
    of_a_training = here / "exp/.config.yaml.x.new"
    for path in (*map(here.joinpath, left), of_a_training):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    assert call(command.split()) == (0, "")
    assert [path for path in left if (here / path).exists()] == []
    assert of_a_training.exists()
    with ThreadPoolExecutor(1) as others, owned(here / held):
        status, said = others.submit(call, command.split()).result()
    assert status == 1 and "is being written by" in said
