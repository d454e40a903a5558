"""The look before a run: every fault is found and says what to do."""

import sys
from pathlib import Path

import pytest

from powsm import preflight

TABLE = """# A recipe

| stage | time | disk | memory | basis |
| --- | --- | --- | --- | --- |
| 0 | 4 h | 1.8 TB | 1 GB | the line |
| 11 | 50 h | 30 GB | 16 GB a process | the paper |
"""


def levels(findings) -> list[str]:
    return [finding.level for finding in findings]


def test_costs_are_read_from_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(TABLE)
    costs = preflight.read_costs(readme)
    assert list(costs) == [0, 11]
    assert preflight.parse_size(costs[0]["disk"]) == 1.8e12
    assert preflight.parse_size(costs[11]["memory"]) == 16e9


def test_readme_without_table_is_an_error(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# A recipe\n")
    with pytest.raises(ValueError, match="no table with the columns"):
        preflight.read_costs(readme)


def test_environment_names_what_is_not_installed():
    findings = preflight.check_environment(["pytest", "no-such-package"])
    assert levels(findings) == ["ok", "ok", "fault"]
    assert "scripts/setup_env.sh" in findings[-1].message


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


def test_disk_sums_folders_of_one_disk(tmp_path):
    free = preflight.shutil.disk_usage(tmp_path).free
    # each of the two would fit alone
    needs = {tmp_path / "a/b": 0.6 * free, tmp_path / "c": 0.6 * free}
    (finding,) = preflight.check_disk(needs)
    assert finding.level == "fault"
    assert levels(preflight.check_disk({tmp_path / "a": 1e3})) == ["ok"]
    assert not (tmp_path / "a").exists()


def test_memory_counts_processes():
    assert levels(preflight.check_memory(1e6, 2)) == ["ok"]
    assert levels(preflight.check_memory(1e9, 1_000_000)) == ["fault"]


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


def test_no_download_yet_is_a_warning(tmp_path):
    assert levels(preflight.check_shards(tmp_path / "downloads")) == ["warning"]


def test_sets_wanted(tmp_path):
    assert levels(preflight.check_sets(tmp_path, ["test_a"])) == ["warning"]
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").touch()
    assert levels(preflight.check_sets(tmp_path, [])) == ["ok"]
    (finding,) = preflight.check_sets(tmp_path, ["test_a"])
    assert finding.level == "fault"
    assert finding.message.startswith("test_a not in")
