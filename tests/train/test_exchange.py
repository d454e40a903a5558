"""What ranks send one another; test_train.py and test_memory.py train on two."""

import pytest
import torch
import torch.distributed as dist
from tiny_model import make_args, make_corpus

from powsm.model.build import task_of_model
from powsm.train.memory import RankStrategy, mean_gradients


def test_nccl_could_send_all_of_a_model(tmp_path, monkeypatch):
    """It refuses tensors that are not contiguous; gloo, which tests have, does not."""
    corpus = make_corpus(tmp_path)
    model = task_of_model("powsm").build_model(make_args(corpus / "tokens", tmp_path))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert not all(value.is_contiguous() for value in model.state_dict().values())

    def broadcast(tensor, src):
        assert tensor.is_contiguous() and src == 0
        tensor += 1

    def all_reduce(tensor, op=dist.ReduceOp.SUM):
        assert tensor.is_contiguous()

    monkeypatch.setattr(dist, "broadcast", broadcast)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    strategy = RankStrategy()
    strategy._model = model
    strategy.configure_ddp()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] + 1), key

    weight = next(p for p in model.parameters() if p.dim() == 2)
    weight.grad = torch.ones(weight.shape[::-1]).t()
    # two ranks of which the other has nothing: sums over 3 of 6 examples, each over 3
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    sums = torch.tensor([5.0], dtype=torch.float64)
    told = mean_gradients(model.parameters(), n_examples=6, divided_by=3, sums=sums)
    assert torch.equal(weight.grad, torch.full_like(weight, 0.5))
    assert told.tolist() == [5.0]


@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_gradients_travel_in_one_piece(monkeypatch, in_bfloat16):
    """Of two ranks with 2 examples each; the other one's gradients are twice ours."""
    sent = []

    def all_reduce(tensor, op=dist.ReduceOp.SUM):
        sent.append((tensor.dtype, tensor.numel()))
        tensor *= 3 if tensor.dtype != torch.float64 else 2

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    layer = torch.nn.Linear(3, 2)
    unused = torch.nn.Parameter(torch.zeros(4))
    weight = torch.tensor([[0.1, 0.2, 0.3], [1.0, 2.0, 4.0]])
    layer.weight.grad, layer.bias.grad = weight.clone(), torch.tensor([8.0, 0.7])
    mean_gradients(
        [unused, *layer.parameters()],
        n_examples=2,
        divided_by=2,
        sums=torch.zeros(1, dtype=torch.float64),
        in_bfloat16=in_bfloat16,
    )
    kind = torch.bfloat16 if in_bfloat16 else torch.float32
    assert sent == [(torch.float64, 5), (kind, 8)]
    assert unused.grad is None
    close = {"rtol": 1e-2 if in_bfloat16 else 1e-6, "atol": 0}
    torch.testing.assert_close(layer.weight.grad, 1.5 * weight, **close)
    torch.testing.assert_close(layer.bias.grad, torch.tensor([12.0, 1.05]), **close)
    assert layer.weight.grad.dtype == torch.float32
