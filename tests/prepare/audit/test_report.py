"""The report's files: complete, self-contained, the same bytes on every run."""

import base64
import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from datadir_builder import odd_one_out
from matplotlib.image import imread

from powsm.audio import SAMPLE_RATE
from powsm.files.lock import OwnedError, owned
from powsm.prepare.audit import plots
from powsm.prepare.audit.counts import audit_set, stage_1_record
from powsm.prepare.audit.report import size, write_report
from powsm.prepare.audit.sections import Section, to_html, to_markdown
from powsm.prepare.filters import Limits

HOUR = 3600 * SAMPLE_RATE
SCRIPT = Path(__file__).parents[3] / "local" / "data_report.py"


def run(*args):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    for dset in ("train", "dev", "test_cv"):
        odd_one_out(data / dset)
    (data / "train" / "prepare.json").write_text(
        '{"dropped": {"no_ipa": 7}, "n_partly_labelled": 5, '
        '"bad_shards": [{"shard": "cv/0", "error": "cut"}]}'
    )
    done = run("--data", data, "--langs", "rus,deu")
    assert done.returncode == 0, done.stderr
    assert "train: valid, 33 utterances, 1 speakers, languages deu rus" in done.stderr
    return data / "report"


def test_two_reports_do_not_meet_and_what_a_killed_one_left_is_gone(tmp_path):
    odd_one_out(tmp_path / "train")
    stats = {"train": audit_set(tmp_path / "train", 1, "original")}
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / ".report.md.x3.new").write_text("half")
    write_report(folder, stats, {"train": {}})
    assert not list(folder.glob(".*"))
    with ThreadPoolExecutor(1) as others, owned(folder):
        with pytest.raises(OwnedError):
            others.submit(write_report, folder, stats, {"train": {}}).result()


def test_markdown_tells_the_findings(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "99 utterances" in text
    # 30 x 2, 8 and 1 s in each of three sets
    assert "| deu | German | 96 | 0.019 | 0.019 | 0.019 | " in text
    assert "| train | ctc_infeasible | 1 | 3.03 % | `cv_100_deu` |" in text
    assert "| `中` | U+4E2D | 3 |" in text
    assert "--max_unknown_rate: dev 0.1504%, test_cv 0.1504%, train 0.1504%." in text
    assert "`cv_102_rus: y`" in text
    assert "| train | no_ipa | 7 |" in text
    assert "| train | taken whole, the supervision is a part | 5 |" in text
    assert "| train | bad shard cv/0 | cut |" in text
    assert "keep 0.5 to 20 s with 300 phones at most, of deu rus alone, before" in text
    for name in re.findall(r"\((\w+\.png)\)", text):
        assert (report / name).read_bytes().startswith(b"\x89PNG")


class _Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_page_needs_no_other_file(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    collector = _Collector()
    collector.feed(page)
    assert len(collector.sources) > 5
    for source in collector.sources:
        assert source.startswith(("data:image/png;base64,", "#"))
    assert "viewport" in page
    assert "ctc_infeasible" in "".join(collector.text)


def test_pictures_are_on_the_paper_of_the_page(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(
        r'<picture><source media="([^"]+)" srcset="data:image/png;base64,([^"]+)">'
        r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)"></picture>',
        page,
    )
    assert len(pictures) == 5 == page.count("<img")
    for media, *both in pictures:
        assert media == "screen and (prefers-color-scheme: dark)"  # and not print
        dark, light = (
            imread(io.BytesIO(base64.b64decode(data)), "png")[..., :3] for data in both
        )
        assert light.shape == dark.shape
        assert light[0, 0].tolist() == [1, 1, 1] and light.min() < 0.1
        assert dark[0, 0].max() < 0.15 and dark.max() > 0.85  # its ink is light


def test_same_bytes_on_a_second_run(report, tmp_path):
    sets = {name: report.parent / name for name in ("dev", "test_cv", "train")}
    stats = {name: audit_set(folder) for name, folder in sets.items()}
    records = {name: stage_1_record(folder) for name, folder in sets.items()}
    limits = Limits(only_languages=frozenset({"deu", "rus"}))
    for name in write_report(tmp_path, stats, records, limits):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes(), name


def test_set_that_breaks_the_rules_is_one_line(report, tmp_path):
    data = tmp_path / "data"
    directory = odd_one_out(data / "train")
    lines = (directory / "utt2lang").read_text().splitlines(keepends=True)
    (directory / "utt2lang").write_text("".join(lines[:-1]))
    done = run("--data", data)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("data_report.py: error: ")
    assert "utt2lang:33" in last
    assert not (data / "report").exists()


def test_markup_in_the_data_stays_text():
    section = Section("A & B", "see <unk> and `<p:>`", ("a|b",), (("x|y <i>",),))
    page = to_html("T", [section], {})
    assert "see &lt;unk&gt; and <code>&lt;p:&gt;</code>" in page
    assert "x|y &lt;i&gt;" in page
    assert "| x\\|y <i> |" in to_markdown("T", [section])


def test_section_without_rows_says_so():
    section = Section("Drops", header=("a", "b"))
    assert "Nothing found." in to_markdown("T", [section])
    assert "Nothing found." in to_html("T", [section], {})


def test_size_has_a_unit():
    assert size(0) == "0 B"
    assert size(2_000_000_000_000) == "2.0 TB"


def test_columns_of_numbers_are_set_to_the_right():
    rows = (("a", "1,234", "5.6 %", "-"), ("7", "0.1", "-2 %", "3"))
    page = to_html("T", [Section("S", header=tuple("wxyz"), rows=rows)], {})
    assert page.count('<th class="n">') == 2 and page.count('<td class="n">') == 4
    assert '<td>7</td><td class="n">0.1</td><td class="n">-2 %</td><td>3</td>' in page


@pytest.mark.parametrize(
    ("hours", "labels"),
    [
        ((0.0033, 0.017, 0.047), ["0.005", "0.01", "0.02", "0.05"]),
        ((0.3, 0.5, 1.1), ["0.3", "0.5", "1"]),
        ((1.2, 30, 140), ["1", "10", "100"]),
    ],
)
def test_hours_have_few_and_plain_labels(hours, labels, monkeypatch):
    """Of a small corpus, whose hours span little more than a power of ten."""

    def with_hours(value):
        return SimpleNamespace(langs={"ita": SimpleNamespace(n_samples=value * HOUR)})

    kinds = dict(zip(("dev", "test", "train"), map(with_hours, hours), strict=True))
    monkeypatch.setattr(plots, "pooled", lambda _: with_hours(sum(hours)))
    monkeypatch.setattr(plots, "_by_kind", lambda _: kinds)
    monkeypatch.setattr(plots, "_png", lambda figure: figure)
    figure = plots.plot_hours({})
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = axes.xaxis.get_major_ticks() + axes.xaxis.get_minor_ticks()
    shown = {t.get_loc(): t.label1.get_text() for t in ticks if t.label1.get_text()}
    assert [shown[x] for x in sorted(shown) if low <= x <= high] == labels
