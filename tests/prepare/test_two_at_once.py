"""Two runs of a stage at once: one writes, the other is refused, nothing is wrong.

scripts/bench/kills.py does the same more often, and kills runs at random.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from shar_builder import make_cut, write_shard

LOCAL = Path(__file__).parents[2] / "local"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six shards of three sets."""
    downloads = tmp_path_factory.mktemp("corpus") / "downloads"
    for split in ("train", "dev", "test"):
        for number in range(2):
            cuts = [
                make_cut(f"{number}-{i:03d}", n_samples=16_000 + i, speaker=f"s{i % 7}")
                for i in range(60)
            ]
            write_shard(downloads / "cv_shar" / split, cuts, f"{number:06d}")
    return downloads


def contents(folder: Path) -> dict[str, bytes]:
    """All files but records, which hold times of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and ".parts" not in path.parts
        and ".done." not in path.name
        and path.name != "stamp.json"
    }


def stage_1(corpus: Path, work: Path) -> list:
    return ["prepare_data.py", "--downloads", corpus, "--data", work / "data"]


def stage_3(corpus: Path, work: Path) -> list:
    return ["copy_audio.py", "--data", work / "data"]


def stage_4(corpus: Path, work: Path) -> list:
    return ["prepare_dump.py", "--data", work / "data", "--dump", work / "dump"]


def start(command: list) -> subprocess.Popen:
    script, *options = map(str, command)
    return subprocess.Popen(
        [sys.executable, str(LOCAL / script), *options],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stage", [stage_1, stage_3, stage_4])
def test_two_runs_at_once(corpus, tmp_path, stage):
    wanted, works = tmp_path / "wanted", [tmp_path / f"try{n}" for n in range(2)]
    for work in (wanted, *works):  # the stages before
        for before in (stage_1, stage_3, stage_4):
            if before is stage:
                break
            if before is stage_3:
                continue
            assert start(before(corpus, work)).wait() == 0
    assert start(stage(corpus, wanted)).wait() == 0
    for work in works:
        runs = [start(stage(corpus, work)) for _ in range(2)]
        ends = [(run.communicate()[1], run.returncode) for run in runs]
        assert 0 in [status for _, status in ends]
        for stderr, status in ends:
            last = stderr.splitlines()[-1]
            assert status == 0 or "is being written by pid" in last, stderr
        made = contents(work)
        for name, content in contents(wanted).items():
            content = content.replace(str(wanted).encode(), str(work).encode())
            assert made.pop(name) == content, name
        assert made == {}
        left = [p for p in work.rglob(".*") if p.name not in {".parts", ".index"}]
        assert left == []
