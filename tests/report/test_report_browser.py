"""The report page in a real browser: it opens, filters and answers clicks."""

import json
import re
import shutil
from pathlib import Path

import pytest
from experiment_builder import PHONES, make_experiment, slashed, write_hyps

from powsm.report import page
from powsm.report.experiment import read_experiment

CHROMIUM = next(
    (Path(p) for p in map(shutil.which, ("chromium", "google-chrome")) if p), None
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
]
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    exp, dump = make_experiment(tmp_path_factory.mktemp("report"))
    (dump / "train").mkdir()
    (dump / "train/drops.json").write_text(json.dumps({"kept_hours": 1.1282}))
    align = exp / "ctc_greedy/test_tone/pr_ctc/align"
    align.mkdir()
    times = [("m", 0.04, 0.2), ("a", 0.2, 0.52)]
    keys = ("phone", "start", "end")
    segments = [dict(zip(keys, row, strict=True)) for row in times]
    row = {"utt_id": "tone_c_spa", "segments": segments}
    (align / "phones.jsonl").write_text(json.dumps(row) + "\n")
    return page.write(read_experiment(exp), dump, "powsm report")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report):
    """The page, and everything it complained of or asked the network for."""
    tab = browser.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            complaints.append(request.url)
            if not request.url.startswith(("file:", "data:"))
            else None
        ),
    )
    tab.goto(report.as_uri())
    yield tab, complaints
    tab.close()


def test_page_opens_without_a_complaint(opened):
    tab, complaints = opened
    assert tab.title() == "s2t_tiny"
    for section in "results training languages confusions worst lid settings".split():
        # every section holds more than its heading
        assert len(tab.query_selector_all(f"#{section} > *")) > 1, section
    assert complaints == []


def test_filter_by_language_leaves_its_scores(opened):
    tab, complaints = opened
    rows = "#results-table tbody tr"
    tab.select_option("#results select >> nth=2", "spa")
    assert tab.locator(rows).count() == 4  # PFER, that of chance, PER, accuracy
    assert "Spanish" in tab.locator(rows).first.inner_text()
    tab.select_option("#results select >> nth=1", "lid")
    assert tab.locator(rows).count() == 1
    assert complaints == []


def test_click_on_a_confusion_shows_aligned_utterances_with_sound(opened):
    tab, complaints = opened
    tab.select_option("#confusions select >> nth=2", "voicing")
    # p -> b in utterance b is the only devoiced phone
    tab.click('#confusion-table button[aria-label="voiceless to voiced: 1"]')
    panel = tab.locator("#confusion-panel")
    assert panel.locator("h3").inner_text() == "voiceless → voiced: once"
    assert panel.locator(".pairs button").all_inner_texts() == ["p → b 1"]
    card = panel.locator(".utterance")
    assert card.count() == 1
    assert card.locator("h4").inner_text() == "tone_b_eng"
    assert card.locator(".steps .sub.hit").inner_text().split() == ["p", "b"]
    card.locator(".steps .sub").click()
    assert "voi - to +" in card.inner_text()
    # the sound is a real one: 0.6 s and what MP3 adds
    audio = card.locator("audio")
    assert audio.get_attribute("src").startswith("data:audio/mpeg;base64,")
    assert complaints == []


def test_cells_are_buttons_for_the_keyboard(opened):
    tab, complaints = opened
    tab.focus('#confusion-table button[aria-label="plosive to plosive: 4"]')
    tab.keyboard.press("Enter")
    assert "plosive → plosive: 4 times" in tab.locator("#confusion-panel").inner_text()
    assert complaints == []


def test_spectrogram_is_a_picture_of_the_utterance(opened):
    tab, _ = opened
    href = tab.locator("#worst image").first.get_attribute("href")
    size = tab.evaluate(
        """async (uri) => {
            const image = new Image();
            image.src = uri;
            await image.decode();
            return [image.naturalWidth, image.naturalHeight];
        }""",
        href,
    )
    assert size == [61, 257]  # 0.6 s in steps of 10 ms; 0 to 8 kHz


def test_boundaries_of_phones_stand_on_the_spectrogram(opened):
    tab, complaints = opened
    card = tab.locator("#worst article", has_text="tone_c_spa")
    assert card.locator("svg text.phone").all_text_contents() == ["m", "a"]
    image = card.locator("svg image").first
    left, width = (float(image.get_attribute(name)) for name in ("x", "width"))
    lines = card.locator("svg line.boundary")
    places = lines.evaluate_all("lines => lines.map((l) => +l.getAttribute('x1'))")
    seconds = [0.6 * (place - left) / width for place in places]
    assert seconds == pytest.approx([0.04, 0.2, 0.2, 0.52])
    card.locator("svg rect.phone").first.click()
    said = card.locator("svg rect.phone title").first.text_content()
    assert said == "m, 0.04 to 0.20 s: click to hear it"
    other = tab.locator("#worst article", has_text="tone_e_spa")
    assert other.locator("svg .boundary").count() == 0
    assert complaints == []


def test_page_fits_a_phone_and_paper(browser, report):
    tab = browser.new_page(viewport=PHONE)
    tab.goto(report.as_uri())
    width = "document.documentElement.scrollWidth"
    assert tab.evaluate(width) == PHONE["width"]
    tab.emulate_media(media="print")
    assert not tab.locator(".controls").first.is_visible()
    assert tab.locator("#results-table").is_visible()
    tab.close()


def test_bars_of_chance_share_the_scale_of_its_metric(opened):
    tab, _ = opened
    rows = tab.locator("#results-table tbody tr")
    named = rows.evaluate_all("rows => rows.map((r) => r.cells[1].textContent)")
    scaled = rows.evaluate_all("rows => rows.map((r) => !!r.querySelector('.scale'))")
    assert named[:2] == ["PFER", "PFER_chance"] and scaled[:2] == [True, False]
    # a bar is as long as its number
    widths = rows.locator(".bar").evaluate_all("bars => bars.map((b) => b.style.width)")
    values = rows.evaluate_all(
        "rows => rows.map((r) => parseFloat(r.cells[2].innerText))"
    )
    shares = [float(width.strip("%")) for width in widths[:2]]
    assert shares[0] / shares[1] == pytest.approx(values[0] / values[1], rel=0.01)


def test_interval_is_not_broken_on_a_phone(browser, report):
    tab = browser.new_page(viewport=PHONE)
    tab.goto(report.as_uri())
    text = tab.locator("#results-table td.number").first.text_content()
    assert re.fullmatch(r"\S+ \[\S+,\u00a0\S+\]", text)
    tab.close()


def test_dark_page_keeps_its_contrast(browser, report):
    tab = browser.new_page(color_scheme="dark")
    tab.goto(report.as_uri())
    colours = tab.evaluate(
        "[getComputedStyle(document.body).color,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert colours == ["rgb(230, 233, 237)", "rgb(20, 24, 29)"]
    tab.close()


def test_page_begins_with_the_best_score(opened):
    tab, complaints = opened
    text = tab.locator("#headline").inner_text()
    assert "PFER 31.4 %" in text and "26.4 to 36.4; less is better" in text
    assert "phone recognition of test_tone by ctc_greedy: 5 utterances, 3 s." in text
    assert "Training data: 67.7 minutes of speech." in text
    tab.click("#headline summary")
    assert "s2t.sh --nj 2 --stage 11" in tab.locator("#headline pre").inner_text()
    assert complaints == []


def test_best_profile_is_first_and_chosen_everywhere(browser, tmp_path):
    exp, dump = make_experiment(tmp_path)
    # a second profile that says every reference phone, and so comes before ctc_greedy
    exact = {utt_id: slashed(ref) for utt_id, (_, ref, _) in PHONES.items()}
    write_hyps(exp, "zzz", "test_tone", "pr_joint", exact)
    rows = json.loads((exp / "results.json").read_text())
    better = [
        {**r, "profile": "zzz", "decode": "joint", "value": 0.0, "low": 0.0}
        for r in rows
        if r["task"] == "pr"
    ]
    (exp / "results.json").write_text(json.dumps(rows + better))
    report = page.write(read_experiment(exp), dump, "powsm report")
    tab = browser.new_page()
    tab.goto(report.as_uri())
    first = tab.locator("#results-table tbody tr").first
    assert "zzz" in first.inner_text() and "best" in first.inner_text()
    assert "by zzz, the best of 2 profiles" in tab.locator("#headline").inner_text()
    for section in ("languages", "confusions", "worst"):
        menu = tab.locator(f"#{section} select").first
        shown = menu.evaluate("menu => menu.selectedOptions[0].textContent")
        assert "zzz" in shown, section
    tab.close()


def test_view_is_in_the_address(opened, browser):
    tab, complaints = opened
    tab.select_option("#results select >> nth=2", "spa")
    tab.select_option("#confusions select >> nth=2", "voicing")
    other = browser.new_page()
    other.goto(tab.url)
    value = "menu => menu.value"
    assert other.eval_on_selector("#results select >> nth=2", value) == "spa"
    assert other.eval_on_selector("#confusions select >> nth=2", value) == "voicing"
    assert other.locator("#results-table tbody tr").count() == 4
    other.close()
    assert complaints == []
