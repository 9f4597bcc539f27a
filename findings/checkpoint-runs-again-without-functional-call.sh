#!/usr/bin/env bash
# Guess: with torch.utils.checkpoint the gradients are those without it. It replays the random numbers and autocast, and
# functional_call stands for a call of the module with other weights, checkpointed or not.
# Seen: the part that is checkpointed is run again in the backward pass, after functional_call has put the module's own
# weights back. The loss is that of the weights given and the gradients mix both: no error, no warning, here 0.25 of the
# right length for the first weight. A TorchFunctionMode around the forward pass is lost in the same way, even when
# backward() is called inside it. With use_reentrant=False, the variant that torch recommends.
# Versions: torch 2.14.1.
# Output: functional_call: the same loss, the first weight's gradient 7.529 instead of 29.838
# Output: function mode: the same loss, gradient 1.066 instead of 2.133
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint


class Block(torch.nn.Module):
    """Two layers with a tanh between them, checkpointed or not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4, bias=False)
        self.second = torch.nn.Linear(4, 4, bias=False)
        self.checkpointed = False

    def layers(self, rows: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(rows)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.layers, rows, use_reentrant=False) if self.checkpointed else self.layers(rows)


class DoubledTanh(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return 2 * result if function is torch.tanh else result


torch.manual_seed(0)
block = Block()
rows = torch.randn(3, 4, requires_grad=True)
given = {name: torch.randn_like(weight).requires_grad_() for name, weight in block.named_parameters()}
seen = []
for block.checkpointed in (False, True):
    loss = functional_call(block, given, (rows,)).square().sum()
    seen.append((loss.item(), torch.autograd.grad(loss, given["first.weight"])[0].norm().item()))
(loss, right), (loss_too, wrong) = seen
print(f"functional_call: the same loss, the first weight's gradient {wrong:.3f} instead of {right:.3f}")
assert loss == loss_too and abs(right - 29.838) < 0.01 and abs(wrong - 7.529) < 0.01

number = torch.tensor(0.3, requires_grad=True)
with DoubledTanh():
    plain = torch.tanh(number) ** 2
    again = checkpoint(lambda value: torch.tanh(value) ** 2, number, use_reentrant=False)
    right, wrong = (torch.autograd.grad(loss, number)[0].item() for loss in (plain, again))
print(f"function mode: the same loss, gradient {wrong:.3f} instead of {right:.3f}")
assert plain.item() == again.item() and abs(right - 2.133) < 0.01 and abs(wrong - 1.066) < 0.01
PYTHON
