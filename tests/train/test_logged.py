"""What TensorBoard and Weights & Biases are told beside losses."""

from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_model import make_args, make_corpus

from powsm.train import logged
from powsm.train.logged import Logged
from powsm.train.run import train
from powsm.train.validation import N_SHOWN, Shown, Validation


class FakeWandb:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def log_metrics(self, figures, step):
        self.told.append((step, figures))

    def log_text(self, key, columns, data):
        self.told.append((key, columns, data))


def test_speed_padding_and_memory_of_the_updates_since_the_line_before(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    clock = SimpleNamespace(speed=lambda: (1800.0, 9.0))
    logger = FakeWandb()
    trainer = SimpleNamespace(
        accumulate_grad_batches=2, log_every_n_steps=1, world_size=4, loggers=[logger]
    )
    module = SimpleNamespace(device=torch.device("cpu"))
    callback = Logged(clock)
    batch = SimpleNamespace(done=[], n_recordings=2)
    for number, (audio_s, padded_s) in enumerate([(3, 4), (3, 4), (9, 10), (9, 10)]):
        module.audio_seconds, module.padded_seconds = audio_s, padded_s
        module.device = torch.device("cuda" if number == 3 else "cpu")
        trainer.global_step = (number + 1) // 2
        callback.on_train_batch_end(trainer, module, None, batch, number)
    (one, first), (two, second) = logger.told
    assert (one, two) == (1, 2)
    assert first == pytest.approx(
        {"run/audio_hours_a_second": 2.0, "run/padding_share": 0.25}
    )
    assert second["run/padding_share"] == pytest.approx(0.1)
    assert second["run/gpu_memory_gib"] == 3.0


def test_weights_and_biases_get_a_table_of_examples(monkeypatch):
    monkeypatch.setattr(logged, "WandbLogger", FakeWandb)
    logger = FakeWandb()
    shown = [Shown("a_b_eng", "p a", "p o")]
    trainer = SimpleNamespace(is_global_zero=True, loggers=[logger], global_step=7)
    callback = Logged(SimpleNamespace())
    callback.on_validation_end(trainer, SimpleNamespace(valid_shown=shown))
    ((key, columns, rows),) = logger.told
    assert key == "valid/examples" and columns[0] == "utt_id"
    assert rows == [["a_b_eng", "p a", "p o"]]


def test_the_same_few_recordings_are_shown_in_any_order():
    ids = [f"corpus_u{n:03d}_eng" for n in range(40)]

    def shown(order):
        validation = Validation(SimpleNamespace(token_list=[]), "phones")
        for utt_id in order:
            validation._show(utt_id, ["p"], ["b"])
        return validation.shown()

    few = shown(ids)
    assert len(few) == N_SHOWN and few == shown(ids[::-1]) == sorted(few)


def test_training_tells_tensorboard(tmp_path):
    corpus = make_corpus(tmp_path)
    args = make_args(corpus / "tokens", tmp_path, num_iters_per_epoch=10, max_epoch=1)
    exp = tmp_path / "exp"
    dump = corpus / "dump"
    train(args, train_folder=dump / "train", valid_folder=dump / "dev", exp=exp)
    events = EventAccumulator(str(exp / "tensorboard"))
    events.Reload()
    (padding,) = events.Scalars("run/padding_share")
    assert padding.step == 10 and 0 < padding.value < 0.5
    assert events.Scalars("run/audio_hours_a_second")[0].value > 0
    (examples,) = events.Tensors("valid/examples/text_summary")
    table = examples.tensor_proto.string_val[0].decode()
    assert table.count("\n") == 6 and "| tiny_u0001_ita | " in table
