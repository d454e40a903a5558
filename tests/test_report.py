"""RESULTS.md and pictures from a generated experiment."""

import json

import pytest
from experiment_builder import make_experiment, make_history

from powsm.report import markdown, plots
from powsm.report.experiment import read_experiment, training_command
from powsm.tables.results import ResultsError, read_results

PNG_START = b"\x89PNG\r\n"


@pytest.fixture
def experiment(tmp_path):
    exp, _ = make_experiment(tmp_path)
    return read_experiment(exp)


def test_results_md_holds_scores_with_intervals(experiment, tmp_path):
    text = markdown.render(experiment, tmp_path / "dump/raw", "python report.py")
    # b: a substitution; c: a deletion; d: an insertion; e: two deletions; 12 phones
    assert "41.7 [36.7, 46.7]" in text
    assert "| spa (Spanish) |" in text
    assert "python report.py" in text and "scripts/s2t.sh --nj 2 --stage 11" in text
    assert "normaliser of test_tone | strict/1, text fix" in text
    # 0.3 s of computing for 5 x 0.6 s of audio
    assert "| 3.0 | 0.3 | 0.1000 |" in text


def test_results_md_names_the_definition_of_every_metric(experiment, tmp_path):
    text = markdown.render(experiment, tmp_path, "")
    for metric in ("PFER", "PER", "accuracy"):
        assert f"- `{metric}`: " in text


def test_weak_results_are_said(experiment):
    text = "\n".join(markdown.weaknesses(experiment))
    assert "PFER 31.4 is above 20" in text
    assert "accuracy 80.0 is below 90" in text
    assert "only 5 utterances" in text
    assert "lowest at the last epoch" in text


def test_write_makes_the_file(experiment, tmp_path):
    path = markdown.write(experiment, tmp_path, "")
    assert path == experiment.path / "RESULTS.md"
    assert path.read_text().startswith("# s2t_tiny\n")


def test_profile_is_kept_apart_from_the_kind_of_search(tmp_path):
    exp, _ = make_experiment(tmp_path)
    file = exp / "results.json"
    records = json.loads(file.read_text())
    file.write_text(
        json.dumps(records + [r | {"profile": "unk_lang"} for r in records])
    )
    systems = {r.system for r in read_experiment(exp).results if r.task == "pr"}
    assert systems == {"ctc_greedy", "unk_lang"}


def test_missing_results_says_what_to_run(tmp_path):
    with pytest.raises(ResultsError, match="stage 13"):
        read_experiment(tmp_path)


def test_record_without_a_field_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"set": "test_x", "lang": "all"}]')
    with pytest.raises(ResultsError, match="record 0 has no .*metric"):
        read_results(path)


def test_undefined_rate_is_not_a_number_of_its_own(tmp_path):
    exp, _ = make_experiment(tmp_path)
    file = exp / "results.json"
    records = json.loads(file.read_text())
    records[0] |= {"value": None, "low": None, "high": None}
    file.write_text(json.dumps(records))
    text = markdown.render(read_experiment(exp), tmp_path, "")
    assert "undefined" in text and "nan" not in text.lower()


def test_training_command_of_a_folder_without_run_sh(tmp_path):
    assert training_command(tmp_path) == ""


def test_plots_are_written_for_what_there_is(tmp_path):
    written = plots.write_plots(make_history(), tmp_path)
    assert [p.name for p in written] == [
        "loss.png",
        "validation_pfer.png",
        "validation_per.png",
    ]
    assert all(p.read_bytes().startswith(PNG_START) for p in written)
    assert plots.write_plots([], tmp_path) == []


def test_languages_of_history_are_not_task_names():
    history = [{"pfer_ctc": 1.0, "pfer_ctc_eng": 2.0, "loss_asr": 3.0, "updates": 1}]
    assert plots.languages_of(history, "pfer_ctc") == ["eng"]
