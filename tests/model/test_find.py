"""Finding and loading models; what does not fit is refused by name."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from dump_builder import make_dump
from published_model import BPE_MODEL, CONFIG, STATS, WEIGHTS, make_published
from safetensors.torch import save_file
from tiny_model import make_experiment, make_tokens

from powsm.decode.recogniser import Recogniser
from powsm.model.find import (
    CheckpointError,
    default_weights,
    find_model,
)
from powsm.model.weights import current_names, load_model, read_weights

SPEECH = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoint")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_tokens(root / "train", root / "tokens")


@pytest.fixture(scope="module")
def published(tokens, tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("published"), tokens)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "powsm"


def copy(published: Path, out: Path) -> Path:
    shutil.copytree(published, out)
    return out


def change_config(root: Path, **changes) -> None:
    config = yaml.safe_load((root / CONFIG).read_text())
    (root / CONFIG).write_text(yaml.safe_dump(config | changes))


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def encoded(source) -> torch.Tensor:
    return Recogniser.load(source).encode([SPEECH])[0]


def test_published_layout_loads_with_old_names_and_without_flash_attn(published):
    files = find_model(published)
    assert files.config_file == published / CONFIG
    assert (files.bpe_model, files.stats_file) == (
        published / BPE_MODEL,
        published / STATS,
    )
    model = load_model(files)
    state = torch.load(published / WEIGHTS, weights_only=True)
    assert "encoder.embed.out.0.weight" in state
    loaded = model.state_dict()["encoder.embed.out.weight"]
    assert torch.equal(loaded, state["encoder.embed.out.0.weight"])
    attention = [m for m in model.modules() if hasattr(m, "use_sdpa")]
    assert attention and not any(m.use_flash_attn for m in attention)
    assert all(layer.attn.use_sdpa for layer in model.encoder.encoders)
    assert not model.training


def test_experiment_and_published_folder_of_one_model_encode_alike(tokens, tmp_path):
    exp = make_experiment(tmp_path, tokens)
    root = make_published(tmp_path / "packed", tokens, normalize="utterance_mvn",
                          normalize_conf={})  # fmt: skip
    change_config(root, normalize="utterance_mvn", normalize_conf={})
    torch.testing.assert_close(encoded(root), encoded(exp))


def test_experiment_that_moved_takes_the_files_that_moved_along(tokens, tmp_path):
    recipe = tmp_path / "recipe"
    (recipe / "data/token_list").mkdir(parents=True)
    shutil.copytree(tokens, recipe / "data/token_list/bpe")
    exp = make_experiment(recipe, recipe / "data/token_list/bpe")
    moved = shutil.move(recipe, tmp_path / "moved")
    assert find_model(Path(moved) / exp.name).bpe_model.is_relative_to(moved)
    alone = shutil.copytree(Path(moved) / exp.name, tmp_path / "alone/exp")
    shutil.rmtree(moved)
    with pytest.raises(CheckpointError, match="neither here .* or the model that `pow"):
        find_model(alone)


def test_working_folder_does_not_stand_in_for_a_packed_one(
    published, tmp_path, monkeypatch
):
    other = tmp_path / BPE_MODEL
    other.parent.mkdir(parents=True)
    other.write_text("of another model")
    monkeypatch.chdir(tmp_path)
    assert find_model(published).bpe_model == published / BPE_MODEL


@pytest.mark.parametrize("prefix", ["/far/away/egs2/powsm/s2t1/", "../elsewhere/"])
def test_paths_of_the_training_machine_are_found_by_their_tails(
    published, tmp_path, prefix
):
    root = copy(published, tmp_path / "model")
    stats = {"stats_file": prefix + STATS}
    change_config(root, bpemodel=prefix + BPE_MODEL, normalize_conf=stats)
    assert find_model(root).stats_file.samefile(root / STATS)
    (root / BPE_MODEL).unlink()
    with pytest.raises(CheckpointError, match=f"bpemodel is {prefix}.*neither here"):
        find_model(root)


def test_folder_without_meta_is_a_model_if_it_holds_one(tokens, published, tmp_path):
    bare = copy(published, tmp_path / "model")
    (bare / "meta.yaml").unlink()
    assert find_model(bare).weights_file == bare / WEIGHTS
    shutil.copytree(bare / "exp", bare / "exp/second/exp")
    shutil.move((bare / CONFIG).parent, bare / "exp/first")
    shutil.copytree(bare / "exp/first", bare / "exp/third")
    with pytest.raises(CheckpointError, match="2 models are in exp/"):
        find_model(bare)


def test_folder_without_meta_gives_its_average_or_what_is_named(published, tmp_path):
    """The first by name was taken, a snapshot of an epoch."""
    root = copy(published, tmp_path / "m")
    (root / "meta.yaml").unlink()
    weights = find_model(root).weights_file
    shutil.copy(weights, weights.with_name("10epoch.pth"))
    weights.rename(weights.with_name("model.pth"))
    with pytest.raises(CheckpointError, match="no valid.*pth; .* name the weights"):
        find_model(root)
    named = weights.with_name("10epoch.pth")
    assert find_model(root, named).weights_file == named
    average = weights.with_name("valid.loss.ave.pth")
    shutil.copy(named, average)
    assert find_model(root).weights_file == average


def test_sub_folder_is_a_model_of_its_own(tokens, published, tmp_path):
    root = copy(published, tmp_path / "model")
    sub = make_published(root / "textnorm_retrained", tokens, seed=7)
    assert find_model(sub).weights_file == sub / WEIGHTS
    assert not torch.equal(encoded(sub), encoded(root))


def test_safetensors_beside_meta_are_read_instead(published, tmp_path):
    root = copy(published, tmp_path / "model")
    save(read_weights(root / WEIGHTS), root / "model.safetensors")
    (root / WEIGHTS).write_text("not read")
    assert find_model(root).weights_file == root / "model.safetensors"
    assert torch.equal(encoded(root), encoded(published))


def test_normaliser_is_reported_where_it_is_recorded(published, tmp_path):
    assert "not recorded" in find_model(published).describe()
    root = copy(published, tmp_path / "model")
    record = '{"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}'
    ((root / CONFIG).parent / "normaliser.json").write_text(record)
    assert "phones by policy strict and text by policy powsm_fix" in (
        find_model(root).describe()
    )


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ctc.ctc_lo.bias"), "ctc.ctc_lo.bias is missing"),
        (
            lambda s: s.update(
                {"decoder.weight_x": s.pop("decoder.after_norm.weight")}
            ),
            "decoder.after_norm.weight is missing; decoder.weight_x is left over",
        ),
        (
            lambda s: s.update({"encoder.after_norm.weight": torch.zeros(8)}),
            r"encoder.after_norm.weight has shape \(8,\), the configuration wants "
            r"\(16,\)",
        ),
    ],
    ids=["missing", "renamed", "misshapen"],
)
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_parameter_that_does_not_fit_is_named(
    published, tmp_path, change, message, kind
):
    root = copy(published, tmp_path / "model")
    state = read_weights(root / WEIGHTS)
    change(state)
    if kind == "pth":
        torch.save(state, root / WEIGHTS)
    else:
        save(state, root / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_model(find_model(root))


@pytest.mark.parametrize(
    ("own", "stored", "expected"),
    [  # the new name from the old, the old from the new, and neither touched
        ("e.embed.out.bias", "e.embed.out.0.bias", "e.embed.out.bias"),
        ("e.embed.out.0.bias", "e.embed.out.bias", "e.embed.out.0.bias"),
        ("e.embed.out.bias", "e.embed.out.bias", "e.embed.out.bias"),
        ("d.embed.0.weight", "d.embed.out.0.bias", "d.embed.out.0.bias"),
    ],
)
def test_renamed_parameters(own, stored, expected):
    value = torch.zeros(1)
    assert list(current_names({stored: value}, {own: value})) == [expected]


def test_stored_positions_are_no_parameter():
    assert current_names({"encoder.embed.out.1.pe": torch.zeros(1)}, {}) == {}


def test_training_checkpoint_is_told_from_parameters(published, tmp_path):
    root = copy(published, tmp_path / "model")
    torch.save({"model": {}, "epoch": 3}, root / WEIGHTS)
    with pytest.raises(CheckpointError, match="holds model epoch besides parameters"):
        load_model(find_model(root))


@pytest.mark.parametrize("name", [WEIGHTS, "model.safetensors"])
def test_damaged_weights_are_refused(published, tmp_path, name):
    root = copy(published, tmp_path / "model")
    (root / name).write_bytes(b"\x80\x02garbage" * 10)
    with pytest.raises(CheckpointError, match=f"{Path(name).name}: not a file of"):
        load_model(find_model(root))


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


def test_code_in_a_checkpoint_is_not_run(published, tmp_path, monkeypatch):
    root = copy(published, tmp_path / "model")
    torch.save({"a": Payload()}, root / WEIGHTS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="not a file of model parameters"):
        load_model(find_model(root))
    assert not (tmp_path / "owned").exists()


def test_settings_of_another_version_are_told(published, tmp_path):
    root = copy(published, tmp_path / "model")
    change_config(root, decoder_conf={"rotary_base": 3})
    with pytest.raises(CheckpointError, match="cannot build it: .*rotary_base"):
        load_model(find_model(root))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder or archive, nor the form of a Hub tag"),
        ("../a/b/c", "no such folder or archive, nor the form of a Hub tag"),
        ("empty", "neither config.yaml .* nor meta.yaml .* 0 models"),
    ],
)
def test_what_is_no_model_is_told(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(CheckpointError, match=message):
        find_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "valid.total_count.ave_5best.till70epoch.pth",
        "valid.total_count.ave.till70epoch.pth",
    ],
)
def test_released_average_of_an_experiment_is_taken(tmp_path, name):
    for weights in (name, "70epoch.pth"):
        (tmp_path / weights).touch()
    assert default_weights(tmp_path).name == name
    (tmp_path / "valid.loss.ave.pth").touch()  # of training here
    assert default_weights(tmp_path).name == "valid.loss.ave.pth"


def test_average_of_the_first_criterion_is_taken(tmp_path):
    """One that was trained further by another has the average of before as well."""
    for name in ("acc", "loss", "pfer_ctc"):
        (tmp_path / f"valid.{name}.ave.pth").touch()
    assert default_weights(tmp_path).name == "valid.acc.ave.pth"
    config = tmp_path / "config.yaml"
    for criteria, name in (
        ("[[valid, pfer_ctc, min], [valid, acc, max]]", "pfer_ctc"),
        ("[[train, loss, min], [valid, loss, min]]", "loss"),
        ("[[valid, cer, min]]", "acc"),
    ):
        config.write_text(f"best_model_criterion: {criteria}\n")
        assert default_weights(tmp_path).name == f"valid.{name}.ave.pth"


def test_experiment_copied_without_its_links_has_its_average(tmp_path):
    for n in (2, 3):
        name = f"valid.loss.ave_{n}best.pth"
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (n, n))
    assert default_weights(tmp_path).name == "valid.loss.ave_3best.pth"
    (tmp_path / "valid.loss.ave.pth").symlink_to("gone.pth")
    assert default_weights(tmp_path).name == "valid.loss.ave_3best.pth"
    (tmp_path / "valid.loss.ave.pth").unlink()
    (tmp_path / "valid.loss.ave.pth").symlink_to("valid.loss.ave_2best.pth")
    assert default_weights(tmp_path).name == "valid.loss.ave.pth"


def test_packed_model_of_another_task_is_refused(published, tmp_path):
    root = copy(published, tmp_path / "model")
    (root / "meta.yaml").write_text("yaml_files: {asr_train_config: x}\nfiles: {}\n")
    with pytest.raises(CheckpointError, match="names no s2t_train_config"):
        find_model(root)


# ---------------------------------------------------------------------- archives


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_archive_is_unpacked_once(published, tmp_path, cache, suffix):
    archive = tmp_path / f"model.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(p for p in published.rglob("*") if p.is_file()):
                file.write(path, path.relative_to(published))
    else:
        with tarfile.open(archive, "w" if suffix == "tar" else "w:gz") as file:
            file.add(published, ".")
    assert torch.equal(encoded(archive), encoded(published))
    (unpacked,) = cache.iterdir()
    before = (unpacked / WEIGHTS).stat().st_mtime_ns
    find_model(archive)
    assert (unpacked / WEIGHTS).stat().st_mtime_ns == before


def test_archive_with_absolute_paths_in_meta_is_found(published, tmp_path):
    """espnet2.bin.pack writes them when files stand outside the working folder."""
    root = copy(published, tmp_path / "model")
    index = {"yaml_files": {"s2t_train_config": f"/{CONFIG}"},
             "files": {"s2t_model_file": f"/{WEIGHTS}"}}  # fmt: skip
    (root / "meta.yaml").write_text(yaml.safe_dump(index))
    assert find_model(root).weights_file == root / WEIGHTS
