"""The shell: options, the stage driver with stand-in stages, both recipes, set-up."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from powsm_command import run_verb

from powsm.files.current import VERSIONS
from powsm.phones import normaliser, orthography
from powsm.prepare.copy_audio import FORMATS
from powsm.prepare.judge import LABELS
from powsm.prepare.subset import SUBSET_HOURS

ROOT = Path(__file__).parents[1]
RECIPES = sorted(ROOT.glob("egs2/*/s2t1"))
SHELL_FILES = sorted(
    [
        *ROOT.glob("scripts/*.sh"),
        *ROOT.glob("egs2/*/s2t1/*.sh"),
        *ROOT.glob("tests/**/*.sh"),
        ROOT / ".ci/run",
    ]
)


def run(*command, cwd=None, env=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- parse_options.sh ---------------------------------------------------------------

SETTINGS = """#!/usr/bin/env bash
# Bake a cake.
#
# Usage: bake.sh [options]
set -euo pipefail
## Oven
stage=1                 # first stage
rate=0.5                # of sugar
hot=false               # whether it is
tag=                    # name of the cake
title="one two"         # with a space
add=()                  # one more thing, may be repeated
internal=3
. PARSE
later=4                 # set after the options
declare -p stage rate hot tag title add given
"""


@pytest.fixture
def bake(tmp_path):
    script = tmp_path / "bake.sh"
    script.write_text(SETTINGS.replace("PARSE", str(ROOT / "scripts/parse_options.sh")))
    return lambda *options: run("bash", script, *options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 'stage="1"'),
        (["--stage", "4"], 'stage="4"'),
        (["--stage=4"], 'stage="4"'),
        (["--stage", "4", "--stage", "-1"], 'stage="-1"'),  # the later one counts
        (["--rate", "2"], 'rate="2"'),
        (["--hot"], 'hot="true"'),
        (["--hot", "--stage", "2"], 'hot="true"'),
        (["--hot", "true"], 'hot="true"'),
        (["--hot=false"], 'hot="false"'),
        (["--tag", ""], 'tag=""'),
        (["--tag", "a b=c $(touch x) `x`"], r'tag="a b=c \$(touch x) \`x\`"'),
        (["--tag=--stage"], 'tag="--stage"'),
        (["--title", "x"], 'title="x"'),
        (["--add", "a=1", "--add=b c"], '([0]="a=1" [1]="b c")'),
        (["--add=--stage"], '([0]="--stage")'),
        (["--stage", "4", "--", "--hot", "--rate=1"], 'given=([0]="hot" [1]="rate")'),
        (["--", "--hot", "--", "--rate=1"], 'given=([0]="rate")'),
        (["--hot", "--", "--stage=4"], 'hot="true"'),
        (["--rate=1"], "given=()"),
    ],
)
def test_option_sets_its_variable(bake, options, expected):
    done = bake(*options)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_dash_and_underscore_mean_the_same():
    help_text = run(ROOT / "scripts/s2t.sh", "--skip-stages=3", "--help", cwd=ROOT)
    assert re.search(r"--skip_stages .*\[3\]", help_text.stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stag", "4"], "unknown option --stag, did you mean --stage?"),
        (["--rat=1"], "unknown option --rat, did you mean --rate?"),
        (["--internal", "4"], "unknown option --internal"),  # has no comment
        (["--later", "4"], "unknown option --later"),  # stands below
        (["--path", "x"], "unknown option --path"),  # a variable, not an option
        (["--stage", "x"], "--stage is an integer, got 'x'"),
        (["--stage", "1.5"], "--stage is an integer, got '1.5'"),
        (["--rate", "1e3"], "--rate is a number, got '1e3'"),
        (["--hot", "yes"], "--hot is true or false, got 'yes'"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "--hot"], "--tag needs a value"),
        (["4"], "unexpected argument '4'"),
        (["-s", "4"], "unexpected argument '-s'"),
    ],
)
def test_wrong_option_stops_with_one_clear_line(bake, options, message):
    done = bake(*options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_all_wrong_options_are_named_at_once(bake):
    done = bake("--stge", "1", "--rate", "x", "--ad", "--hot=maybe")
    lines = done.stderr.splitlines()
    assert lines == [
        "bake.sh: unknown option --stge, did you mean --stage?",
        "bake.sh: --rate is a number, got 'x'",
        "bake.sh: unknown option --ad, did you mean --add?",
        "bake.sh: --hot is true or false, got 'maybe'",
        "bake.sh: --help lists every option",
    ]


def test_help_lists_every_option_with_its_value(bake):
    done = bake("--stage", "7", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Bake a cake.\n\nUsage: bake.sh [options]\n\nOven\n")
    assert "first stage [7]" in done.stdout
    assert re.findall(r"^  --(\w+)", done.stdout, re.M) == [
        "stage",
        "rate",
        "hot",
        "tag",
        "title",
        "add",
    ]


# --- the stage driver, with stand-ins for the programs of local/ --------------------

STAND_IN = '''
"""Notes its call, writes one file in its output folder; dies half-way if asked to."""
import os, signal, sys
from pathlib import Path

name, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
if name == "powsm":
    name, *arguments = arguments
if name == "current":  # which no stand-in can answer
    real = [sys.executable, "-m", "powsm.cli.main"]
    os.execv(sys.executable, [*real, *sys.argv[1:]])
options = dict(zip(arguments[::2], arguments[1::2]))
if "--dry_run" in arguments:  # which writes nothing
    print(name, *arguments, file=sys.stderr)
    sys.exit(os.environ.get("REFUSE"))
with open("calls.log", "a") as log:
    print(name, *arguments, file=log)
if os.environ.get("FAIL") == name:
    sys.exit(3)
files = {
    "download": ["downloads/fake_shar/train/cuts.000000.jsonl.gz"],
    "prepare_data": [f"data/{s}/text.ipa" for s in ("train", "dev", "test_fake")],
    "data_report": ["data/report/report.md"],
    "copy_audio": ["data/train/wav.ark"],
    "prepare_dump": [
        f"dump/raw/{s}/{f}"
        for s in ("train", "dev", "test_fake") for f in ("wav.scp", "text")
    ],
    "tokens": ["data/token_list/bpe_unigram30/tokens.txt"],
    "stats": ["exp/s2t_stats_raw/train/feats_stats.npz"],
    "train": [f"{options.get('--exp')}/valid.pfer_ctc.ave.pth"],
    "decode": [f"{options.get('--exp')}/decode_ctc/x"],
    "score-exp": [f"{options.get('--exp')}/results.json"],
    "report": [f"{options.get('--exp')}/RESULTS.md"],
}
for file in map(Path, files[name]):
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text("x")
    if os.environ.get("KILL") == name:
        os.kill(os.getpid(), signal.SIGKILL)
'''

SCRIPTS = ["download", "prepare_data", "data_report", "prepare_dump"]
VERBS = ["tokens", "stats", "train", "decode", "score-exp", "report"]
PROGRAMS = [*SCRIPTS, *VERBS]


class Recipe:
    """A recipe folder whose stages are stand-ins."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self) -> "Recipe":
        folder = self.folder
        (folder / "local").mkdir(parents=True)
        (folder / "conf").mkdir()
        (folder / "scripts").symlink_to(ROOT / "scripts")
        for name in [*SCRIPTS, "copy_audio"]:
            (folder / f"local/{name}.py").write_text(STAND_IN)
        (folder / "bin").mkdir()
        self.powsm = folder / "bin/powsm"
        self.powsm.write_text(f"#!{sys.executable}\n{STAND_IN}")
        self.powsm.chmod(0o755)
        (folder / "conf/train_small.yaml").write_text("a: 1\n")
        (folder / "conf/decode_ctc.yaml").write_text("b: 1\n")
        (folder / "path.sh").write_text(
            f'export PATH="$PWD/bin:{Path(sys.executable).parent}:$PATH"\n'
        )
        (folder / "cmd.sh").write_text("cmd_backend=local\n")
        run_sh = folder / "run.sh"
        run_sh.write_text(
            "#!/usr/bin/env bash\nexec scripts/s2t.sh --download local/download.py "
            "--nbpe 30 --config conf/train_small.yaml "
            '--decode_configs conf/decode_ctc.yaml -- "$@"\n'
        )
        run_sh.chmod(0o755)
        return self

    def __call__(self, *options, **env) -> subprocess.CompletedProcess:
        return run("./run.sh", *options, cwd=self.folder, env=env)

    def calls(self) -> list[str]:
        """Programs called since the last look, in order."""
        log = self.folder / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path / "a recipe").write()  # the space is part of the test


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    recipe = Recipe(tmp_path_factory.mktemp("complete") / "recipe").write()
    done = recipe()
    assert done.returncode == 0, done.stderr
    assert recipe.calls() == PROGRAMS
    return recipe


@pytest.fixture
def finished(complete, tmp_path):
    """A copy of a recipe folder in which all stages ran, times of files included."""
    copy = tmp_path / "a recipe"
    return Recipe(shutil.copytree(complete.folder, copy, symlinks=True))


def test_stages_run_in_order_and_say_from_to_and_time(recipe):
    done = recipe()
    assert done.returncode == 0, done.stderr
    assert recipe.calls() == PROGRAMS
    numbers = re.findall(r"stage (\d+): ", done.stderr)
    assert numbers == ["0", "1", "2", "3", "4", "5", "10", "11", "12", "13"]
    assert re.findall(r"stage (\d+) took \d+ s", done.stderr) == numbers
    assert "tokens: dump/raw/train -> data/token_list/bpe_unigram30" in done.stderr
    assert "stages 0 to 13 are done in" in done.stderr


def test_stage_range_and_skipped_stages(recipe):
    recipe("--stop_stage", "1")
    recipe.calls()
    done = recipe("--stage", "1", "--stop-stage", "5", "--skip_stages", "3 2")
    assert done.returncode == 0, done.stderr
    assert recipe.calls() == ["prepare_data", "prepare_dump", "tokens"]
    assert "stage 2 is skipped" in done.stderr


def test_a_test_set_alone_is_prepared(recipe):
    done = recipe("--stage", "2", "--stop_stage", "4")
    assert done.returncode == 1 and "stage 2 needs data/*/text.ipa" in done.stderr
    for file in ("text.ipa", "wav.scp"):
        (recipe.folder / "data/test_mine").mkdir(parents=True, exist_ok=True)
        (recipe.folder / "data/test_mine" / file).write_text("u x\n")
    done = recipe("--stage", "2", "--stop_stage", "4", "--audio_format", "wav")
    assert done.returncode == 0, done.stderr
    assert recipe.calls() == ["data_report", "copy_audio", "prepare_dump"]


# stages whose programs keep their own account are called each time, the others not
KEEP_THEIR_OWN = [
    "download",
    "prepare_data",
    "prepare_dump",
    "tokens",
    "decode",
]


def test_second_run_skips_what_is_current(finished):
    done = finished()
    assert done.returncode == 0, done.stderr
    assert finished.calls() == [*KEEP_THEIR_OWN, "score-exp", "report"]
    assert "exp/s2t_train_small_bpe30 is current" in done.stderr


def test_changed_input_runs_its_stage_and_not_the_others(finished):
    (finished.folder / "data/dev/text.ipa").write_text("changed")
    finished("--stage", "2", "--stop_stage", "12")
    assert "data_report" in finished.calls()
    (finished.folder / "conf/train_small.yaml").write_text("a: 22\n")
    finished("--stage", "10", "--stop_stage", "11")
    assert finished.calls() == ["stats", "train"]


def test_changed_setting_runs_its_stage(finished):
    finished("--stage", "10", "--stop_stage", "10", "--stats_hours", "3")
    assert finished.calls() == ["stats"]


def test_removed_output_runs_its_stage(finished):
    shutil.rmtree(finished.folder / "exp/s2t_stats_raw")
    finished("--stage", "10", "--stop_stage", "10")
    assert finished.calls() == ["stats"]


@pytest.mark.parametrize(
    ("stage", "file", "program"),
    [
        ("2", "data/report/report.md", "data_report"),
        ("10", "exp/s2t_stats_raw/train/feats_stats.npz", "stats"),
        ("11", "exp/s2t_train_small_bpe30/valid.pfer_ctc.ave.pth", "train"),
    ],
)
def test_removed_or_cut_file_runs_its_stage(finished, stage, file, program):
    """Stage 11 asked for statistics that stage 10 called current without their file."""
    made = finished.folder / file
    for spoil, called in (
        (made.unlink, [program]),
        (lambda: made.write_text(""), [program]),  # which the stand-in leaves as it is
        (lambda: None, []),
    ):
        spoil()
        done = finished("--stage", stage, "--stop_stage", stage)
        assert done.returncode == 0, done.stderr
        assert finished.calls() == called


def test_changed_program_runs_nothing(finished):
    """A comment must not cost a training; a stage's number says what counts."""
    program = finished.folder / "local/prepare_data.py"
    program.write_text(program.read_text() + "# mended\n")
    done = finished("--stage", "10", "--stop_stage", "10")
    assert finished.calls() == []
    assert "exp/s2t_stats_raw is current" in done.stderr


def test_raised_version_runs_its_stage_alone(finished):
    for stage, folder in ((10, "s2t_stats_raw"), (11, "s2t_train_small_bpe30")):
        record = finished.folder / f"exp/{folder}/.done_{stage}"
        found = json.loads(record.read_text())
        assert found["version"] == VERSIONS[f"stage {stage}"]
        if stage == 10:
            record.write_text(json.dumps(found | {"version": found["version"] - 1}))
    finished("--stage", "10", "--stop_stage", "11")
    assert finished.calls() == ["stats"]


@pytest.mark.parametrize(
    ("program", "stage"), [("stats", 10), ("train", 11), ("decode", 12)]
)
def test_killed_stage_redoes_only_itself(recipe, program, stage):
    done = recipe(KILL=program)
    assert done.returncode == 128 + signal.SIGKILL
    assert f"stage {stage} failed (status 137)" in done.stderr
    assert f"go on with --stage {stage}" in done.stderr
    assert recipe.calls()[-1] == program  # nothing ran on half an output
    done = recipe("--skip_stages", "0 1 4 5")
    assert done.returncode == 0, done.stderr
    left = PROGRAMS[PROGRAMS.index(program) :]
    assert recipe.calls() == left


def test_failed_stage_gives_its_exit_status(recipe):
    done = recipe(FAIL="prepare_dump")
    assert done.returncode == 3
    assert "stage 4 failed (status 3)" in done.stderr
    assert recipe.calls()[-1] == "prepare_dump"


def test_stage_without_its_input_names_it(recipe):
    done = recipe("--stage", "5")
    assert done.returncode == 1
    assert "stage 5 needs dump/raw/train/text, which is not there" in done.stderr
    assert recipe.calls() == []


def test_dry_run_prints_the_plan_and_touches_nothing(recipe):
    before = sorted(recipe.folder.rglob("*"))
    done = recipe("--dry_run", "--set", "optim_conf.lr=0.1")
    assert done.returncode == 0, done.stderr
    assert sorted(recipe.folder.rglob("*")) == before
    for name in SCRIPTS:
        assert f"python local/{name}.py " in done.stdout
    for name in VERBS:
        assert f"run:  powsm {name} " in done.stdout
    assert " exp/s2t_train_small_bpe30_optim_conf.lr0.1/valid" in done.stdout
    assert "--set ngpu=0 optim_conf.lr=0.1" in done.stdout


def test_dry_run_ends_as_the_look_at_the_settings_does(recipe):
    done = recipe("--dry_run", "--set", "sedd=1", REFUSE="unknown key 'sedd'")
    assert done.returncode == 1 and done.stderr.endswith("unknown key 'sedd'\n")
    assert "stage 13" in done.stdout
    assert recipe("--dry_run", "--stage", "12", "--set", "sedd=1", REFUSE="x").stdout


def test_experiment_with_weights_is_not_touched_where_training_is_refused(finished):
    exp = finished.folder / "exp/s2t_train_small_bpe30"
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in exp.rglob("*.*")}
    (finished.folder / "dump/raw/train/text").write_text("other examples")
    done = finished("--stage", "11", "--trainer", "", REFUSE="exp was trained with")
    assert done.returncode == 1
    assert "exp was trained with" in done.stderr and finished.calls() == []
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in exp.rglob("*.*")}
    assert after == before and exp / ".done_11" in before
    assert finished("--stage", "11", "--stop_stage", "11").returncode == 0
    assert finished.calls() == ["train"]


def test_check_prints_the_plan_and_calls_the_check(recipe):
    stand_in = recipe.folder / "bin/powsm"
    stand_in.write_text(stand_in.read_text().split("files = {")[0])
    options = ("--test_sets", "test_a test_b", "--set", "seed=3", "--exp_name", "x")
    done = recipe("--check", "--ngpu", "2", *options)
    assert done.returncode == 0, done.stderr
    assert "stage 11: train" in done.stdout
    call = (recipe.folder / "calls.log").read_text()
    assert "--config conf/train_small.yaml" in call
    assert "--test_sets test_a test_b --nj 2" in call
    assert "--exp exp/x --set seed=3" in call
    assert recipe.calls() == ["check"]
    assert recipe("--check", FAIL="check").returncode == 3


def test_settings_name_the_experiment_and_its_run_sh_resumes_it(finished):
    done = finished("--stage", "11", "--stop_stage", "11", "--set", "model_conf.x=a/b")
    assert done.returncode == 0, done.stderr
    finished.calls()
    exp = finished.folder / "exp/s2t_train_small_bpe30_model_conf.xa_b"
    done = run(exp / "run.sh", "--stop_stage", "12", cwd="/")
    assert done.returncode == 0, done.stderr
    assert f"{exp.relative_to(finished.folder)} is current" in done.stderr
    assert finished.calls() == ["decode"]


def test_test_sets_are_those_of_the_dump_folder_or_those_named(finished):
    options = ["--dry_run", "--stage", "12", "--stop_stage", "12"]
    assert "--sets test_fake --device cpu" in finished(*options).stdout
    plan = finished(*options, "--test_sets", "test_b test_a", "--ngpu", "1").stdout
    assert "--sets test_b test_a --device cuda" in plan
    assert "dump/raw/test_b dump/raw/test_a" in plan


def test_lists_may_have_several_lines(finished):
    """Of `$(ls dump/raw)` the first set alone was decoded."""
    (finished.folder / "conf/decode_b.yaml").write_text("b: 2\n")
    profiles = "\nconf/decode_ctc.yaml\n\tconf/decode_b.yaml\n"
    plan = finished(
        *("--dry_run", "--skip_stages", "0\n2", "--skip_corpora", "cv\ntamil"),
        *("--test_sets", "test_b\ntest_a", "--decode_configs", profiles),
        *("--eval_sets", "timit\nsaa"),
    ).stdout
    assert "--sets test_b test_a test_timit test_saa --device" in plan
    assert "--profiles conf/decode_ctc.yaml conf/decode_b.yaml --sets" in plan
    assert "--set timit saa" in plan and "--skip_corpora cv tamil" in plan


def test_several_gpus_start_ranks(recipe):
    plan = recipe("--dry_run", "--stage", "11", "--ngpu", "4").stdout
    assert "powsm ranks --n 4 -- powsm train" in plan
    assert "powsm ranks --n 4 -- powsm decode" in plan
    assert "--set ngpu=4" in plan


def test_more_epochs_go_on_in_the_same_experiment(recipe):
    options = ["--dry_run", "--stage", "11", "--set", "seed=7"]
    plan = recipe(*options, "--set", "max_epoch=9").stdout
    assert "--exp exp/s2t_train_small_bpe30_seed7 " in plan
    assert "--set ngpu=0 seed=7 max_epoch=9" in plan


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "base.yaml").write_text("base: bottom.yaml\nseed: 3"),
        lambda folder: (folder / "bottom.yaml").write_text("max_epoch: 2\n\n"),
        lambda folder: (folder / "weights").write_text("u1 0.5\n"),
        lambda folder: (folder / "noise/b.wav").write_text("b"),
        lambda folder: (folder / "teacher/valid.acc.ave.pth").write_text("new"),
    ],
    ids=["base", "base of the base", "utt2weight", "noise", "teacher"],
)
def test_a_training_is_not_current_when_what_its_settings_name_changed(
    tmp_path, monkeypatch, capsys, change
):
    monkeypatch.chdir(tmp_path)
    for folder in ("noise", "teacher"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "bottom.yaml": "max_epoch: 2\n",
        "base.yaml": "base: bottom.yaml\nseed: 2\n",
        "c.yaml": "base: base.yaml\naugment: {noise: {folder: noise}}\n",
        "weights": "u1 0\n",
        "noise/a.wav": "a",
        "teacher/valid.acc.ave.pth": "old",
        "teacher/train.log": "1",
    }.items():
        (tmp_path / name).write_text(text)
    options = ["--stage", "11", "--record", "done", "--inputs", "c.yaml", "--"]
    options += ["powsm", "train", "--config", "c.yaml", "--set", "ngpu=0"]
    options += ["utt2weight=weights", "model_conf.teacher=teacher"]
    run_verb("current", *options)
    (tmp_path / "done").write_text(capsys.readouterr().out)
    (tmp_path / "teacher/train.log").write_text("12")
    run_verb("current", *options)
    assert capsys.readouterr().out == ""
    change(tmp_path)
    run_verb("current", *options)
    assert '"stage": "stage 11"' in capsys.readouterr().out


def test_report_is_of_the_labels_that_stage_4_takes(recipe):
    """`released` is of simplified labels, as stage 4 has it."""
    options = ["--dry_run", "--stage", "2", "--stop_stage", "2"]
    plan = recipe(*options, "--ipa_policy", "released").stdout
    assert "data_report.py --data data --nj 2 --policy released --text_policy" in plan
    plan = recipe(*options, "--ipa_labels", "clean", "--text_policy", "released").stdout
    assert "--policy strict --labels clean --text_policy released" in plan


def test_report_has_the_limits_of_stage_4(recipe):
    options = "--min_duration 1 --max_duration 12.5 --max_phones 90 --langs".split()
    options.append("eng fra")
    plan = recipe("--dry_run", "--stage", "2", "--stop_stage", "4", *options).stdout
    for script in ("data_report.py", "prepare_dump.py"):
        (run,) = [line for line in plan.splitlines() if f"local/{script} " in line]
        assert shlex.join(options).replace("'eng fra'", r"eng\ fra") in run


def test_statistics_are_of_the_features_that_are_set(recipe):
    options = ["--dry_run", "--stage", "10", "--stop_stage", "10", "--set", "seed=7"]
    features = ["frontend_conf.n_mels=40", "preprocessor_conf.speech_length=10"]
    plan = recipe(*options, *(f"--set={change}" for change in features)).stdout
    (run,) = [line.split() for line in plan.splitlines() if " powsm stats " in line]
    assert run[-3:] == ["--set", *features]
    assert "--set" not in recipe(*options).stdout
    plan = recipe(*options, "--stats_window", "own", "--set", features[0]).stdout
    assert f"--stats_window own --set {features[0]}\n" in plan


def test_trainer_that_is_asked_for_has_its_own_folder(recipe):
    """Without, `powsm train` looks into the configuration."""
    plan = recipe("--dry_run", "--stage", "11", "--ngpu", "4", "--trainer", "espnet")
    launched = "powsm ranks --n 4 -- powsm train"
    assert f"run:  {launched} --trainer espnet --config conf/" in plan.stdout
    assert "--exp exp/s2t_train_small_bpe30_espnet" in plan.stdout
    plan = recipe("--dry_run", "--stage", "11")
    assert "run:  powsm train --config conf/train_small.yaml" in plan.stdout
    assert "--exp exp/s2t_train_small_bpe30 " in plan.stdout


def test_packing_and_uploading_run_when_asked_for(recipe):
    assert "stage 14" not in recipe("--dry_run", "--stage", "13").stdout
    plan = recipe("--dry_run", "--stage", "14", "--stop_stage", "15", "--hf_repo=a/b")
    assert "run:  powsm pack --exp exp/s2t_train_small_bpe30" in plan.stdout
    assert "packed --hf_repo a/b --private true" in plan.stdout
    done = recipe("--dry_run", "--stage", "15", "--stop_stage", "15")
    assert done.returncode == 1 and "stage 15 needs --hf_repo" in done.stderr


def test_downloaded_model_is_decoded_and_not_trained(recipe):
    tag = "espnet/powsm"
    done = recipe("--dry_run", "--stage", "10", "--download_model", tag)
    assert "powsm train" not in done.stdout and "stage 11 is skipped" in done.stderr
    assert "--exp exp/espnet_powsm --model espnet/powsm" in done.stdout
    assert "score-exp --exp exp/espnet_powsm" in done.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--stage=08", "--stage is a whole number of 0 or more: 08"),
        ("--ngpu=-1", "--ngpu is a whole number of 0 or more: -1"),
        ("--nproc=0", "--nproc is a whole number of 1 or more: 0"),
        ("--nj=0", "--nj is a whole number of 1 or more: 0"),
        ("--nbpe=0", "--nbpe is a whole number of 1 or more: 0"),
        ("--stage=14", "--stage 14 comes after --stop_stage 13"),
        ("--skip_stages=two", "--skip_stages is a list such as '3 10': two"),
        ("--skip_stages=03 10", "--skip_stages is a list such as '3 10': 03 10"),
        ("--decode_configs=conf/decode_x.yaml", "conf/decode_x.yaml: no such file"),
        ("--decode_configs=conf/decode_*.yaml", "conf/decode_*.yaml: no such file"),
        ("--trainer=stock", "--trainer is one of powsm espnet: stock"),
        ("--subset=3h", "--subset is one of 10min 10h 100h 250h 1kh: 3h"),
        ("--ipa_policy=", "--ipa_policy is one of strict released powsm_fix: \n"),
        (f"--exp_name={'é' * 101}", "name has 202 bytes, expected 200 at most"),
        ("--audio_format=mp3", "--audio_format is one of inplace flac.ark wav: mp3"),
        (
            "--config=conf/x.yaml",
            "--config conf/x.yaml: no such file; take one of conf/train_small.yaml",
        ),
    ],
)
def test_setting_that_cannot_be_is_told_before_stage_0(recipe, option, message):
    done = recipe(option)
    assert done.returncode == 1
    assert message in done.stderr
    assert recipe.calls() == []


def test_choices_of_the_shell_are_those_of_the_library():
    text = (ROOT / "scripts/s2t.sh").read_text()
    (table,) = re.findall(r"done <<END\n(.*?)END\n", text, re.S)
    lines = (line.removesuffix(" unset").split() for line in table.splitlines())
    choices = {name: tuple(rest) for name, *rest in lines}
    assert choices.pop("phones") == choices.pop("languages") == ("all", "observed")
    assert choices.pop("trainer") == ("powsm", "espnet")
    assert choices == {
        "audio_format": ("inplace", *FORMATS),
        "ipa_policy": normaliser.POLICIES,
        "ipa_labels": tuple(LABELS),
        "text_policy": orthography.POLICIES,
        "subset": tuple(SUBSET_HOURS),
        "stats_window": ("own", "published"),
    }


@pytest.mark.parametrize("model", ["init_from", "download_model"])
@pytest.mark.parametrize(
    "option", ["nbpe=30", "phones=all", "languages=all", "stats_hours=1"]
)
def test_option_that_a_model_leaves_without_a_reader_is_refused(recipe, model, option):
    """The recipe's own settings are for a training from nothing, and stay."""
    done = recipe(f"--{option}", f"--{model}=espnet/powsm", "--dry_run")
    assert done.returncode == 1
    assert f"--{option.split('=')[0]}: not used, a model of --init_from" in done.stderr
    assert recipe(f"--{model}=espnet/powsm", "--dry_run").returncode == 0


def test_several_ranks_on_the_cpu_start_ranks(recipe):
    plan = recipe("--dry_run", "--stage", "11", "--nproc", "2").stdout
    assert "powsm ranks --n 2 -- powsm train" in plan
    assert "powsm ranks --n 2 -- powsm decode" in plan
    assert "--set ngpu=0" in plan and "--device cpu" in plan


def test_slurm_submits_stages_1_4_11_and_12(recipe):
    (recipe.folder / "cmd.sh").write_text("cmd_backend=slurm\n")
    plan = recipe("--dry_run", "--cluster", "c.yaml").stdout
    submitted = re.findall(
        r"powsm submit --cluster c.yaml --stage (\d+) --log (\S+)", plan
    )
    exp = "exp/s2t_train_small_bpe30"
    assert submitted == [
        ("1", "exp/log/stage1"),
        ("4", "exp/log/stage4"),
        ("11", f"{exp}/log/stage11"),
        ("12", f"{exp}/log/stage12"),
    ]
    assert re.search(r"--ranks -- powsm train .*--set ngpu=\\{gpus\\}", plan)
    assert re.search(r"run:  python local/prepare_data.py .* --merge", plan)
    assert re.search(r"run:  powsm decode .* --merge", plan)
    assert "powsm ranks" not in plan
    plan = recipe("--dry_run", "--stage", "11", "--trainer", "espnet").stdout
    assert "/log/stage11 --ranks -- powsm train --trainer espnet" in plan


def test_training_by_slurm_goes_on_from_a_machine_without_gpus(finished):
    (finished.folder / "cmd.sh").write_text("cmd_backend=slurm\n")
    options = ("--stage", "11", "--stop_stage", "11", "--ngpu", "4")
    done = finished(*options, FAIL="submit")
    assert finished.calls() == ["submit"]
    assert "train " in done.stderr and "--dry_run --set ngpu=0" in done.stderr


def test_unknown_backend_is_told(recipe):
    (recipe.folder / "cmd.sh").write_text("cmd_backend=sge\n")
    done = recipe("--dry_run")
    assert done.returncode == 1
    assert "cmd.sh: cmd_backend is local or slurm: sge" in done.stderr


# --- the recipes --------------------------------------------------------------------


@functools.cache
def help_of(program: str) -> str:
    """What a command of the plan says to --help: `local/x.py` or `powsm x`."""
    if program.startswith("powsm "):
        words = ["-m", "powsm.cli.main", program.removeprefix("powsm ")]
    else:
        words = [ROOT / program]
    done = run(sys.executable, *words, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", RECIPES, ids=lambda path: path.parent.name)
class TestRecipe:
    def test_links_and_files(self, folder):
        for name in ("conf", "local", "scripts"):
            assert (folder / name).resolve() == ROOT / name
            assert os.readlink(folder / name) == f"../../../{name}"
        for name in ("run.sh", "cmd.sh", "path.sh", "db.sh"):
            assert (folder / name).is_file()

    def test_run_sh_ends_in_the_options_of_the_user(self, folder):
        lines = (folder / "run.sh").read_text().rstrip().splitlines()
        assert lines[-1].strip() == '"$@"'

    def test_copy_that_sbatch_runs_and_cdpath(self, folder, tmp_path):
        """Slurm copies the script; CDPATH makes cd print, and go elsewhere."""
        shutil.copy(folder / "run.sh", tmp_path / "slurm_script")
        (tmp_path / "s2t1").mkdir()
        env = {"CDPATH": str(tmp_path)}
        plans = [
            run(*script, "--dry_run", cwd=cwd, env=env)
            for script, cwd in (
                (("bash", tmp_path / "slurm_script"), folder),
                (("bash", "s2t1/run.sh"), folder.parent),
                (("./run.sh",), folder),
            )
        ]
        for plan in plans:
            assert plan.returncode == 0, plan.stderr
            assert plan.stdout == plans[-1].stdout and "stage 13" in plan.stdout

    def test_user_overrides_a_setting_from_any_folder(self, folder):
        done = run(folder / "run.sh", "--nbpe", "77", "--help", cwd="/")
        assert done.returncode == 0, done.stderr
        assert re.search(r"--nbpe .*\[77\]", done.stdout)

    def test_unknown_option_stops_before_anything_runs(self, folder):
        done = run(folder / "run.sh", "--stop_stge", "3", cwd="/")
        assert done.returncode == 2
        assert "unknown option --stop_stge, did you mean --stop_stage?" in done.stderr

    def test_plan_names_programs_options_and_configs_that_exist(self, folder):
        done = run(
            folder / "run.sh", "--dry_run", "--audio_format", "flac.ark", cwd="/"
        )
        assert done.returncode == 0, done.stderr
        pattern = r"run: .*?(local/\w+\.py|powsm [a-z-]+) (.*)"
        plan = re.sub(r"powsm ranks --n \d+ -- ", "", done.stdout)
        commands = re.findall(pattern, plan)
        assert len(commands) >= 10
        missing = []
        for program, arguments in commands:
            help_text = help_of(program)
            for option in re.findall(r"(?<!\S)--(\w+)", arguments):
                if not re.search(rf"^ +--{option}\b", help_text, re.M):
                    missing.append(f"{program} --{option}")
        for config in re.findall(r"conf/\S+\.yaml", done.stdout):
            if not (ROOT / config).exists():
                missing.append(config)
        assert missing == []


# --- all shell files, set-up, hooks -------------------------------------------------


@pytest.mark.parametrize(
    ("name", "corpus"), [("long", "gnomehelp"), ("world", "gnomeworld")]
)
def test_longer_mini_recipe_keeps_to_its_own_folders(name, corpus):
    done = run(ROOT / f"egs2/mini_ipapack/s2t1/run_{name}.sh", "--dry_run")
    assert done.returncode == 0, done.stderr
    targets = re.findall(r"^    to:   (\S+)$", done.stdout, re.M)
    assert len(targets) >= 9
    assert all(re.match(f"(downloads|data|dump|exp)/{name}", to) for to in targets)
    assert corpus in done.stdout
    assert f"conf/train_mini_{name}.yaml" in done.stdout


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.parent.name)
def test_recipe_behind_a_link_finds_its_programs(tmp_path, folder):
    """It asked for scripts/setup_env.sh, which found all up to date."""
    (tmp_path / "linked").symlink_to(folder)
    show = 'cd "$1"; dry_run=true; . ./path.sh; echo "${repo}"'
    done = run("bash", "-euc", show, "show", tmp_path / "linked")
    assert done.stdout.strip() == str(ROOT)


def test_mini_recipe_without_a_decoder_has_its_own_experiment():
    done = run(ROOT / "egs2/mini_ipapack/s2t1/run_ctc.sh", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "conf/train_mini_ctc.yaml" in done.stdout
    assert "exp/mini_ctc" in done.stdout and "decode_ctc_lid" in done.stdout


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_shell_file_parses(path):
    done = run("bash", "-n", path)
    assert done.returncode == 0, done.stderr


def test_shellcheck_is_clean():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = run(shellcheck, *SHELL_FILES, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_setup_without_python_says_what_to_install(tmp_path):
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts/setup_env.sh", tmp_path / "scripts")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("dirname", "sort", "sed", "bash"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = run(
        shutil.which("bash"),
        script,
        env={"PATH": str(tools), "HOME": str(tmp_path)}
        | {"PYENV_ROOT": str(tmp_path / "pyenv")},
    )
    assert done.returncode == 1
    assert "no Python 3.12 or 3.13" in done.stderr
    assert "pyenv install 3.12" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_leaves_the_environment_of_another_checkout_alone(tmp_path):
    other = tmp_path / "other/.venv"
    (other / "bin").mkdir(parents=True)
    (other / "bin/pip").write_text(f"#!{other}/bin/python\n")
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts/setup_env.sh", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(other)
    done = run(script)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path}/.venv is a link to {other}" in line and "remove" in line
    assert (other / "bin/pip").exists()


def test_setup_takes_a_link_to_another_disk(tmp_path):
    """It goes on to look for a Python, of which there is none."""
    disk = tmp_path / "disk"
    (disk / "bin").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts/setup_env.sh", tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(disk)
    for own in (False, True):
        if own:
            (disk / "bin/pip").write_text(f"#!{tmp_path}/.venv/bin/python\n")
        done = run(
            *(shutil.which("bash"), script),
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYENV_ROOT": "/none"},
        )
        assert "another checkout" not in done.stderr


def test_setup_takes_no_arguments():
    done = run(ROOT / "scripts/setup_env.sh", "--gpu")
    assert done.returncode == 1
    assert "takes no arguments, got: --gpu" in done.stderr


def test_large_file_is_refused(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large file"
    small.write_bytes(bytes(500_000))
    large.write_bytes(bytes(501_000))
    script = ROOT / "scripts/check_large_files.sh"
    assert run(script, small).returncode == 0
    done = run(script, small, large)
    assert done.returncode == 1
    assert "large file: 501 kB, more than 500 kB" in done.stderr
    assert len(done.stderr.splitlines()) == 1
