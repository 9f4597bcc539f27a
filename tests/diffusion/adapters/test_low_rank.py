"""Our low-rank linear layer against PEFT's own, forwards and backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import nn

from dbcli.diffusion.adapters.low_rank import LowRankLinear

RANK, ALPHA = 4, 6.0


class Pair(nn.Module):
    """A layer with a bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 8, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.second(torch.tanh(self.first(rows)))
        return output


def pair(kind: type[Linear], names: tuple[str, ...] = ("default",), **how: Any) -> Pair:
    """Both layers with an adapter of random values a name, all of them in force."""
    torch.manual_seed(0)
    network = Pair()
    for name in names:
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["first", "second"], **how)
        config._register_custom_module({nn.Linear: kind})
        inject_adapter_in_model(config, network, adapter_name=name)
    for layer in (network.first, network.second):
        assert type(layer) is kind
        layer.set_adapter(list(names))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def outcome(network: Pair, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and every gradient, that of the input among them."""
    rows = rows.clone().requires_grad_(True)
    torch.manual_seed(2)
    output = network(rows)
    output.float().square().sum().backward()
    found = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return {"output": output.detach(), "rows": rows.grad, **found}  # type: ignore[dict-item]


ROWS = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("names", "how"),
    [
        (("default",), {}),
        (("default", "other"), {}),
        (("default",), {"lora_dropout": 0.4}),
        (("default",), {"use_dora": True}),
    ],
)
def test_values_and_gradients_are_pefts(names: tuple[str, ...], how: dict[str, Any]) -> None:
    ours, pefts = (outcome(pair(kind, names, **how), ROWS) for kind in (LowRankLinear, Linear))
    assert ours.keys() == pefts.keys() and len(ours) >= 6
    for name, value in ours.items():
        torch.testing.assert_close(value, pefts[name], rtol=1e-5, atol=1e-5)


def test_in_bfloat16_arithmetic_both_are_equally_near_the_exact_values() -> None:
    exact = outcome(pair(Linear), ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        ours, pefts = (outcome(pair(kind), ROWS) for kind in (LowRankLinear, Linear))
    assert ours["output"].dtype == pefts["output"].dtype == torch.bfloat16
    assert ours["first.lora_A.default.weight"].dtype == torch.float32
    for name, value in exact.items():
        bound = 0.03 * float(value.abs().max())
        assert float((ours[name].float() - value).abs().max()) < bound, name
        assert float((pefts[name].float() - value).abs().max()) < bound, name


def test_switched_off_or_merged_the_layer_is_the_base_or_the_sum() -> None:
    network = pair(LowRankLinear)
    with torch.no_grad():
        together = network(ROWS)
        for layer in (network.first, network.second):
            layer.enable_adapters(False)
        torch.manual_seed(0)
        torch.testing.assert_close(network(ROWS), Pair()(ROWS))
        for layer in (network.first, network.second):
            layer.enable_adapters(True)
            layer.merge()
        torch.testing.assert_close(network(ROWS), together)


def test_at_the_start_of_training_not_one_bit_of_the_output_changes() -> None:
    network = pair(LowRankLinear)
    for layer in (network.first, network.second):
        nn.init.zeros_(layer.lora_B["default"].weight)
    torch.manual_seed(0)
    assert torch.equal(network(ROWS), Pair()(ROWS))
