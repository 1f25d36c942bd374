"""Which weights Muon moves, and that a checkpoint keeps the moments of both optimizers."""

import torch
from torch import nn

from models.training.muon import Muon
from models.training.optimizers import Optimizers, is_inner


class Block(nn.Module):
    """One matrix of each kind that the rule tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.x_embedder, self.to_q, self.proj_out = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """All of them in a row."""
        return self.proj_out(self.to_q(self.x_embedder(states)))  # type: ignore[no-any-return]


def fresh(muon_rate: float = 0.1) -> tuple[Block, Optimizers]:
    torch.manual_seed(0)
    block = Block()
    return block, Optimizers(dict(block.named_parameters()), 0.1, muon_rate, 0.0)


def move(block: Block, optimizers: Optimizers, seed: int) -> None:
    block(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    optimizers.step()


def test_muon_moves_the_matrices_between_the_first_and_the_last_layer() -> None:
    block, _ = fresh()
    assert [name for name, weight in block.named_parameters() if is_inner(name, weight)] == ["to_q.weight"]


def test_every_singular_direction_of_an_inner_matrix_moves_about_as_far() -> None:
    block, optimizers = fresh()
    before = block.to_q.weight.detach().clone()
    move(block, optimizers, 1)
    singular = torch.linalg.svdvals(block.to_q.weight.detach() - before)
    assert singular.max() < 2 * singular.min()


def test_an_update_is_that_of_torchs_muon_which_computes_in_half_the_digits() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(6, 10)) for _ in range(2))
    one = Muon([ours], lr=0.1, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(2):
        ours.grad = torch.randn(6, 10)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()  # type: ignore[no-untyped-call]
    assert torch.allclose(ours, theirs, atol=0.01)
    assert not torch.allclose(ours, torch.ones(6, 10), atol=0.05)


def test_without_a_rate_for_muon_adam_moves_all() -> None:
    block, optimizers = fresh(muon_rate=0.0)
    move(block, optimizers, 1)
    assert {entry.partition(":")[0] for entry in optimizers.remember()} == {"exp_avg", "exp_avg_sq"}


def test_moments_taken_up_again_move_the_weights_as_if_never_put_down() -> None:
    block, optimizers = fresh()
    move(block, optimizers, 1)
    kept = {name: value.clone() for name, value in optimizers.remember().items()}
    copy, again = fresh()
    copy.load_state_dict(block.state_dict())
    again.recall(kept, step=1)
    move(block, optimizers, 2)
    move(copy, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(block.parameters(), copy.parameters(), strict=True))
