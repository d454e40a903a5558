"""The look before a run: every fault is found and says what to do."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from powsm.cli import check
from powsm.cluster import checks as preflight
from powsm.cluster.costs import read_costs
from powsm.corpora.ipapack import update_manifest
from powsm.hub import RemoteFile
from powsm.settings import ConfigError

ROOT = Path(__file__).parents[2]
COSTS = """# A recipe
0:
  time: 4 h
  disk: 1.8 TB
  memory: 1 GB
  GPU-hours: 0
  basis: the line
11:
  time: 50 h
  disk: 30 GB
  memory: 16 GB a process
  GPU-hours: 200
  basis: the paper
  config: conf/train.yaml
  hours: 17133
  nbpe: 40000
"""


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


def test_costs_of_a_recipe(tmp_path):
    path = tmp_path / "costs.yaml"
    path.write_text(COSTS)
    costs = read_costs(path)
    assert list(costs) == [0, 11]
    assert preflight.parse_size(costs[0]["disk"]) == 1.8e12
    assert preflight.parse_size(costs[11]["memory"]) == 16e9
    assert (costs[0]["GPU-hours"], costs[11]["GPU-hours"]) == ("0", "200")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "found 'a', expected the number of a stage"),
        ("4: 10 min", "found 4, expected the number of a stage with"),
        (COSTS.replace("  basis: the line\n", ""), "stage 0: basis unknown or missing"),
        (COSTS.replace("disk: 30", "disc: 30"), "stage 11: disc disk unknown or"),
        ("# A recipe", "expected 'key: value' lines"),
    ],
)
def test_costs_with_a_fault_are_an_error(tmp_path, text, message):
    path = tmp_path / "costs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_costs(path)


def test_environment_names_what_is_not_installed():
    findings = preflight.check_environment(["pytest", "no-such-package"])
    assert levels(findings) == ["ok", "ok", "fault"]
    assert "run make env" in findings[-1].message


def test_wrong_python_is_a_fault(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    (finding,) = preflight.check_environment(["pytest"])
    assert finding.level == "fault"
    assert finding.message.startswith("3.11.7, but 3.12 or 3.13 is needed")


@pytest.mark.parametrize(
    ("conf", "level"),
    [
        ({"encoder_conf": {"use_sdpa": True}}, "ok"),
        ({"encoder_conf": {"use_sdpa": False}, "decoder_conf": None}, "warning"),
        ({}, "warning"),
    ],
)
def test_attention_without_flash(conf, level):
    assert levels(preflight.check_attention(conf)) == [level]


def test_flash_attention_that_is_not_installed_names_the_way_out(monkeypatch):
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    (finding,) = preflight.check_attention({"decoder_conf": {"use_flash_attn": True}})
    assert finding.level == "warning"
    assert "use_sdpa: true" in finding.message


def test_ranks_of_this_machine_meet():
    (finding,) = preflight.check_ranks(2, cuda=False)
    assert finding.level == "ok", finding.message
    assert finding.message == f"2 ranks on {os.uname().nodename}: all-reduce by gloo"


def test_rank_that_cannot_work_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = preflight.check_ranks(2, cuda=True)
    assert finding.level == "fault"
    name = f"all-reduce by NCCL: rank 0 on host {os.uname().nodename}: "
    assert finding.message.startswith(name)


def test_cluster_file_with_faults_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text("all: {cpu: 1}\n")
    (finding,) = preflight.check_cluster(tmp_path / "c.yaml", [1])
    assert finding.level == "fault"
    assert "all.cpu: unknown; did you mean 'cpus'?" in finding.message
    assert "\n" not in finding.message


def test_disk_sums_folders_of_one_disk(tmp_path):
    free = preflight.shutil.disk_usage(tmp_path).free
    # each of the two would fit alone
    needs = {tmp_path / "a/b": 0.6 * free, tmp_path / "c": 0.6 * free}
    (finding,) = preflight.check_disk(needs)
    assert finding.level == "fault"
    assert levels(preflight.check_disk({tmp_path / "a": 1e3})) == ["ok"]
    assert not (tmp_path / "a").exists()


def test_memory_counts_processes():
    assert levels(preflight.check_memory(1e6, 2, 4)) == ["ok"]
    (finding,) = preflight.check_memory(1e9, 1_000_000, 4)
    assert finding.level == "fault"
    assert "needed by stage 4" in finding.message
    assert "(1000000 processes)" in finding.message


def test_folder_that_cannot_be_written_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda *_: False)
    (finding,) = preflight.check_disk({tmp_path / "a": 1.0})
    assert finding.level == "fault"
    assert f"{tmp_path} cannot be written" in finding.message
    assert levels(preflight.check_disk({tmp_path / "a": 0.0})) == ["ok"]


def test_memory_is_that_of_the_job(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(preflight, "CGROUP_LIMIT", limit)
    for text, level in (("3000000\n", "fault"), ("max\n", "ok")):
        limit.write_text(text)
        assert levels(preflight.check_memory(2e6, 2, 4)) == [level]


def test_small_shared_memory_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path)
    assert levels(preflight.check_shared_memory()) == ["ok"]
    monkeypatch.setattr(preflight, "SHARED_BYTES", 1e18)
    (finding,) = preflight.check_shared_memory()
    assert finding.level == "fault"
    assert "--shm-size" in finding.message
    monkeypatch.setattr(preflight, "SHARED_MEMORY", tmp_path / "none")
    assert preflight.check_shared_memory() == []


def test_downloads_are_held_against_the_manifest(tmp_path):
    files = [
        RemoteFile("a/b", "0" * 40, f"cv_shar/train/x{n}.tar", 3, "0" * 64)
        for n in range(8)
    ]
    update_manifest(tmp_path, files, files)
    (tmp_path / "cv_shar/train").mkdir(parents=True)
    for file in files[1:]:
        (tmp_path / file.path).write_bytes(b"abc")
    (finding,) = preflight.check_downloads(tmp_path, planned=False)
    assert finding.level == "fault"
    assert "x0.tar: is missing; stage 0 fetches it" in finding.message
    (tmp_path / files[0].path).write_bytes(b"abc")
    (finding,) = preflight.check_downloads(tmp_path, planned=False)
    assert finding.level == "ok"
    for file in files:
        (tmp_path / file.path).write_bytes(b"a")
    findings = preflight.check_downloads(tmp_path, planned=True)
    assert levels(findings) == ["warning"] * 6
    assert findings[-1].message == "and 3 files more"


def test_downloads_without_manifest_are_looked_at_by_shard(tmp_path):
    make_shards(tmp_path / "cv_shar/train", cuts="0", recordings="")
    assert levels(preflight.check_downloads(tmp_path, planned=False)) == ["fault"]
    assert levels(preflight.check_downloads(tmp_path, planned=True)) == ["warning"]


def make_shards(split: Path, cuts: str, recordings: str) -> None:
    split.mkdir(parents=True)
    for digit in cuts:
        (split / f"cuts.00000{digit}.jsonl.gz").touch()
    for digit in recordings:
        (split / f"recording.00000{digit}.tar").touch()


def test_missing_half_of_a_shard_is_named(tmp_path):
    make_shards(tmp_path / "cv_shar/train", cuts="01", recordings="01")
    make_shards(tmp_path / "cv_shar/dev", cuts="0", recordings="02")
    make_shards(tmp_path / "doreco_shar/test", cuts="01", recordings="0")
    findings = preflight.check_shards(tmp_path)
    assert [(f.level, f.message.split(":")[0]) for f in findings] == [
        ("fault", "cv_shar/dev"),
        ("ok", "cv_shar/train"),
        ("fault", "doreco_shar/test"),
    ]
    assert "no cuts for shard 000002" in findings[0].message
    assert "no recording for shard 000001" in findings[2].message


def test_no_download_is_a_fault_unless_it_is_planned(tmp_path):
    for planned, level in ((True, "warning"), (False, "fault")):
        found = preflight.check_downloads(tmp_path / "downloads", planned=planned)
        assert levels(found) == [level]


def test_sets_wanted(tmp_path):
    for planned, level in ((True, "warning"), (False, "fault")):
        found = preflight.check_sets(tmp_path, ["test_a"], planned=planned)
        assert levels(found) == [level]
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").touch()
    assert levels(preflight.check_sets(tmp_path, [], planned=False)) == ["ok"]
    (finding,) = preflight.check_sets(tmp_path, ["test_a"], planned=False)
    assert finding.level == "fault"
    assert finding.message.startswith("test_a not in")


def test_check_command_ends_with_the_number_of_faults(tmp_path):
    """From the recipe's own command; the plan is stages 11 and 12 without any data."""
    done = subprocess.run(
        [
            *("bash", "run.sh", "--check", "--stage", "11", "--stop_stage", "12"),
            *("--config", "conf/train_powsm_fast.yaml", "--ngpu", "0"),
        ],
        cwd=ROOT / "egs2/powsm/s2t1",
        env=os.environ | {"POWSM_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    about = {words[1]: words[0] for words in lines if words[:1] and len(words) == 3}
    assert about["python"] == about["torch"] == about["config"] == "ok"
    assert about["sets"] == "fault"
    assert "data" not in about  # no stage of the plan reads the shards
    assert done.stdout.splitlines()[-1].endswith("fault(s)")
    assert done.returncode == 1
    assert "GB needed" in done.stdout and "cost: not known" in done.stdout


def look(tmp_path, *options: str) -> list[str]:
    """Levels and messages of what `powsm check` finds about training settings."""
    words = ["--config", str(ROOT / "conf/tuning/ema.yaml"), "--exp", "exp/x"]
    words += ["--token_dir", str(tmp_path), "--dump", str(tmp_path), *options]
    parser = argparse.ArgumentParser()
    check.add_options(parser)
    found = check.training(parser.parse_args(words))
    return [f"{finding.level}: {finding.message}" for finding in found]


def test_check_takes_base_changes_and_name_of_the_experiment(tmp_path):
    config, attention = look(tmp_path, "--set", "seed=3")
    assert config.startswith("ok: ") and "scaled_dot_product_attention" in attention
    (fault,) = look(tmp_path, "--set", "sedd=3")
    assert fault.startswith("fault: ") and "did you mean 'seed'?" in fault
    (fault,) = look(tmp_path, "--exp", f"exp/{'x' * 256}")
    assert "has 256 bytes, expected 200 at most" in fault
    (fault,) = look(tmp_path, "--config", "none.yaml")
    assert fault.startswith("fault: ") and "none.yaml" in fault
    (tmp_path / "tokens.txt").write_text("<blank>\na\na\n")
    (fault,) = look(tmp_path)
    assert "tokens.txt:3: token 'a' is on line 2 already" in fault
