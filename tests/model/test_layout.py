"""What is known of a batch before a device sees it: CTC's columns, frames, tasks."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from s2t_examples import make_batches

from powsm.model.batch import Batch
from powsm.model.frames import FrameGrid
from powsm.model.layout import CtcTargets, Frames, LayoutMaker


def of(*targets):
    return CtcTargets.of([np.array(t, dtype=np.int64) for t in targets])


def make_maker(**changes):
    tasks = {"asr": 4, "pr": 5, "g2p": 6, "p2g": 7}
    ids = {"na": 2, "sop": 17, "sos": 15, "eos": 16, "padding": -1, "tasks": tasks}
    return LayoutMaker(**(ids | changes))


def test_a_label_has_one_column_however_often_it_comes():
    targets = of([3, 3, 5], [1, 9, 1, 2], [])
    assert targets.symbols[1].tolist() == [0, 1, 2, 9]
    assert targets.columns.tolist() == [[1, 1, 2, 0], [1, 3, 1, 2], [0, 0, 0, 0]]
    assert targets.n_labels == (3, 4, 0)
    # what is left over is neither the blank nor a label
    assert targets.symbols[0].tolist() == [0, 3, 5, 1]
    assert targets.symbols[2].tolist() == [0, 1, 1, 1]


def test_targets_of_all_symbols_leave_no_column_over():
    """Of three symbols and the blank: a longer table has none that is not there."""
    targets = of([2, 1, 3], [2, 1])
    assert targets.symbols.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


@given(st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=5))
def test_columns_say_the_labels_again(rows):
    targets = of(*rows)
    assert targets.labels().tolist() == sum(rows, [])
    for symbols, row in zip(targets.symbols.tolist(), rows, strict=True):
        left_over = symbols[1 + len(set(row)) :]
        assert not set(left_over) & {0, *row} and max(symbols) <= 6


def test_tokens_that_a_head_of_phones_lacks_are_one_symbol():
    """CTC asks for a blank between equal neighbours: two unknown ones are equal."""
    batch = Batch.of(make_batches()[0])
    rows = np.minimum(np.arange(18), 12) - 10  # 10 and before 0, 11 is 1, others 2
    target = torch.tensor([[11, 12, 13, 12, 11]] * 3)
    batch.text_ctc, batch.text_ctc_lengths = target, torch.tensor([5, 4, 2])
    targets = make_maker(ctc_rows=rows)(batch).ctc_targets
    assert targets.columns[0].tolist() == [1, 2, 2, 2, 1]
    assert targets.symbols.tolist() == [[0, 1, 2]] * 3


def test_each_target_counts_by_its_examples():
    layout = make_maker()(Batch.of(make_batches()[0]))
    assert layout.ctc_share.tolist() == [4 / 8, 1 / 8, 3 / 8]
    assert layout.ctc_audio is None and layout.frames is None


def test_tasks_have_numbers_and_sizes():
    batch = Batch.of(make_batches()[0])  # of one recording asr, two g2p, three p2g, pr
    layout = make_maker(tasks={"pr": 5, "asr": 4, "lid": 3})(batch)
    assert layout.tasks == {"pr": 0, "asr": 1}
    n_tokens = batch.text_lengths + 1  # <eos>
    learned = [int(n_tokens[batch.text[:, 1] == task].sum()) for task in (5, 4)]
    others = int(n_tokens.sum()) - sum(learned)
    expected = [[3, learned[0]], [1, learned[1]], [1, 1], [4, others]]
    assert layout.task_sizes.tolist() == expected
    assert torch.bincount(layout.task).tolist() == [*learned, 0, others]


def test_frames_of_recordings():
    """Of 7 and 11 frames of a spectrogram, convolutions of 3 and step 2 leave 1, 2."""
    frames = Frames.of((960, 1600), FrameGrid.from_kernels(160, ((3, 2), (3, 2))))
    assert frames.n == (1, 2)
    assert frames.is_frame.tolist() == [[True, False], [True, True]]
    assert frames.is_padding.tolist() == [[False] * 7 + [True] * 4, [False] * 11]


def test_every_tensor_moves():
    maker = make_maker(grid=FrameGrid.from_kernels(160, ((3, 2), (3, 2))))
    layout = maker(Batch.of(make_batches()[0])).to(torch.device("meta"))
    parts = (layout, layout.frames, layout.ctc_targets)
    values = [x for part in parts for x in vars(part).values() if torch.is_tensor(x)]
    assert len(values) == 15 and all(x.is_meta for x in values)
