"""Values of YAML as people write them."""

import pytest

from powsm.settings import ConfigError, apply_overrides, load_yaml

BOM = "\ufeff"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),  # Norwegian
        ("on", "on"),
        ("y", "y"),  # a phone
        ("Off", "Off"),
        ("YES", "YES"),
        ("[no, da, n]", ["no", "da", "n"]),
        ("true", True),
        ("False", False),
        ("1e-4", 1e-4),
        ("12", 12),
        ("", None),
    ],
)
def test_only_true_and_false_are_truth_values(tmp_path, written, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"{BOM}no: {written}\n", encoding="utf-8")
    assert load_yaml(path) == {"no": value}
    assert apply_overrides({}, [f"a={written}"]) == {"a": value}
    # what is saved and read by stock YAML is the same
    assert apply_overrides({"no": value}, []) == {"no": value}


def test_yaml_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("a: 1\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=f"^{path}: UTF-16 text; save it as UTF-8"):
        load_yaml(path)


def test_values_as_text_are_as_written(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 12.50\nb: on\nc:\n")
    assert load_yaml(path, values_as_text=True) == {"a": "12.50", "b": "on", "c": ""}
