"""Tiers of TextGrids and EAFs, as annotators leave them."""

import pytest
from praatio import textgrid
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.point_tier import PointTier

from powsm.corpora.tiers import TierError, read_stretches
from powsm.decode.align_files import Segment, eaf

ROWS = [(0.25, 0.5, 'an "IntervalTier"'), (0.5, 1.0, "ខ្មែរ & <b>")]


@pytest.fixture(params=["TextGrid", "short", "eaf"])
def annotated(request, tmp_path):
    ending = "eaf" if request.param == "eaf" else "TextGrid"
    path = tmp_path / f"a.{ending}"
    if request.param == "eaf":
        segments = [Segment(label, start, end, 1.0) for start, end, label in ROWS]
        path.write_text(eaf({"Spk 1": segments, "notes": []}), encoding="utf-8")
        return path
    grid = textgrid.Textgrid(0, 1.5)
    grid.addTier(IntervalTier("Spk 1", ROWS, 0, 1.5))
    grid.addTier(IntervalTier("notes", [(0, 1.5, "")], 0, 1.5))
    grid.addTier(PointTier("clicks", [(1.0, "a click")], 0, 1.5))
    form = "short_textgrid" if request.param == "short" else "long_textgrid"
    grid.save(str(path), form, includeBlankSpaces=True)
    return path


def test_stretches_with_text_are_read(annotated):
    assert read_stretches(annotated, "spk 1") == ("Spk 1", ROWS)
    assert read_stretches(annotated, "notes") == ("notes", [])


def test_tier_must_be_there_and_chosen(annotated):
    with pytest.raises(TierError, match="which tier. found Spk 1, notes"):
        read_stretches(annotated)
    with pytest.raises(TierError, match="no tier Spk 2; found Spk 1, notes"):
        read_stretches(annotated, "Spk 2")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.eaf"
    path.write_text("<a>")
    with pytest.raises(TierError, match="a.eaf: no EAF of ELAN"):
        read_stretches(path)
    path = path.with_suffix(".TextGrid")
    with pytest.raises(TierError, match="a.TextGrid: cannot be read .No such file"):
        read_stretches(path)
    path.write_text("nothing")
    with pytest.raises(TierError, match="a.TextGrid: no tier of intervals; expected"):
        read_stretches(path)


def test_stretches_that_overlap_are_refused(tmp_path):
    path = tmp_path / "a.eaf"
    path.write_text(eaf({"t": [Segment("a", 0, 1, 1.0), Segment("b", 0.5, 2, 1.0)]}))
    with pytest.raises(TierError, match="'a' .0.000 to 1.000 s. overlaps 'b'"):
        read_stretches(path)


@pytest.mark.parametrize("end_s", [1.5, 2.0])
def test_last_stretch_without_a_length_is_refused(tmp_path, end_s):
    path = tmp_path / "a.eaf"
    path.write_text(eaf({"t": [Segment("a", 0, 1, 1.0), Segment("b", 2, end_s, 1.0)]}))
    with pytest.raises(TierError, match=f"a.eaf: tier t: 'b' from 2.000 to {end_s}"):
        read_stretches(path)


def test_tiers_of_one_name_are_told_apart_by_nobody(annotated):
    text = annotated.read_text(encoding="utf-8").replace("notes", "Spk 1")
    annotated.write_text(text, encoding="utf-8")
    with pytest.raises(TierError, match="several tiers are called Spk 1; found Spk 1"):
        read_stretches(annotated, "Spk 1")


@pytest.mark.parametrize("annotated", ["TextGrid", "short"], indirect=True)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"ខ្មែរ & <b>"', ""),  # as of a file that was cut off
        ('an ""IntervalTier""', 'an "a" twice'),
    ],
)
def test_intervals_that_cannot_be_read_are_told(annotated, before, after):
    text = annotated.read_text(encoding="utf-8")
    assert before in text
    annotated.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(TierError, match=r"tier Spk 1 says 4 intervals, 3 can be read"):
        read_stretches(annotated, "Spk 1")


def test_times_that_are_no_milliseconds_are_refused(tmp_path):
    path = tmp_path / "a.eaf"
    text = eaf({"t": [Segment("a", 0, 1, 1.0)]})
    assert 'TIME_UNITS="milliseconds"' in text
    path.write_text(text.replace('="milliseconds"', '="PAL-frames"'))
    with pytest.raises(TierError, match="a.eaf: its times are PAL-frames, expected"):
        read_stretches(path, "t")


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [('MIME_TYPE="audio/x-wav"', 1), ("", 1), ('MIME_TYPE="video/mp4"', 0)],
)
def test_times_of_a_sound_that_was_moved_are_refused(kind, is_refused, tmp_path):
    path = tmp_path / "a.eaf"
    media = f'<MEDIA_DESCRIPTOR MEDIA_URL="a.wav" {kind} TIME_ORIGIN="1500"/>'
    text = eaf({"t": [Segment("a", 0, 1, 1.0)]})
    path.write_text(text.replace("<TIER ", f"{media}<TIER ", 1))
    if not is_refused:
        assert read_stretches(path, "t")[1][0].label == "a"
        return
    with pytest.raises(TierError, match=r"a.eaf: its times begin 1.5 s into the sound"):
        read_stretches(path, "t")


@pytest.mark.parametrize("annotated", ["eaf"], indirect=True)
def test_annotation_without_a_time_is_told(annotated):
    text = annotated.read_text(encoding="utf-8")
    annotated.write_text(text.replace('TIME_VALUE="500"', ""), encoding="utf-8")
    with pytest.raises(TierError, match="has no time of its own at one end"):
        read_stretches(annotated, "Spk 1")
    assert read_stretches(annotated, "notes") == ("notes", [])


def with_children(path, *rows):
    """An EAF with words on a tier, and a tier below: (id, of what, label)."""
    said = [Segment("la casa", 0.0, 0.5, 1.0), Segment("bianca", 0.5, 1.0, 1.0)]
    marks = "".join(
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{own}" ANNOTATION_REF="{ref}">'
        f"<ANNOTATION_VALUE>{label}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>"
        for own, ref, label in rows
    )
    tier = f'<TIER TIER_ID="ipa" PARENT_REF="words">{marks}</TIER>'
    text = eaf({"words": said}).replace("<TIER ", f"{tier}<TIER ", 1)
    path.write_text(text, encoding="utf-8")
    return path


def test_tier_below_another_has_its_times(tmp_path):
    """The symbolic association of ELAN, on which transcriptions often are."""
    path = with_children(tmp_path / "a.eaf", ("b1", "a1", "kaza"), ("b2", "a2", "b"))
    rows = [(0.0, 0.5, "kaza"), (0.5, 1.0, "b")]
    assert read_stretches(path, "ipa") == ("ipa", rows)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([("b1", "a1", "la"), ("b2", "a1", "kaza")], "has no time of its own"),
        ([("b1", "a7", "la")], "b1 refers to a7, which is not there"),
        ([("b1", "b2", "la"), ("b2", "b1", "la")], "b1 refers to b2"),
        ([("a1", "a2", "la")], "annotation a1 is given twice"),
    ],
)
def test_tier_below_another_without_times_is_told(tmp_path, rows, fault):
    with pytest.raises(TierError, match=fault):
        read_stretches(with_children(tmp_path / "a.eaf", *rows), "ipa")
