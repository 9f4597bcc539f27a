"""A convolution with many weights and few places is a matrix product on a CPU, and gives what it gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dbcli.diffusion.bases import few_places, stored_layers
from dbcli.diffusion.bases.few_places import as_product, has_few_places, input_gradient
from dbcli.diffusion.bases.stored_layers import StoredConvolution, keep_as_stored
from dbcli.diffusion.precision import autocast

CPU = torch.device("cpu")
LAYERS = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, padding=1, stride=2),
    dict(kernel_size=(3, 5), padding=(0, 2), dilation=(2, 1)),
    dict(kernel_size=1),
]


def layer_and_rows(options: dict[str, object], dtype: torch.dtype = torch.float32) -> tuple[nn.Conv2d, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 5, **options)  # type: ignore[arg-type]
    return layer.to(dtype), torch.randn(2, 6, 7, 8).to(dtype)


@pytest.mark.parametrize("options", LAYERS)
def test_the_product_and_its_gradient_are_those_of_the_convolution(options: dict[str, object]) -> None:
    layer, rows = layer_and_rows(options)
    expected = layer(rows.requires_grad_(True))
    output = as_product(layer, rows, layer.weight, layer.bias)
    assert output.shape == expected.shape and torch.allclose(output, expected, atol=1e-6)
    gradient = torch.randn_like(expected)
    (of_rows,) = torch.autograd.grad(expected, rows, gradient)
    assert torch.allclose(input_gradient(layer, rows.shape, layer.weight, gradient), of_rows, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "places", "is_product"),
    [
        (dict(kernel_size=3, padding=1), (2, 8, 8), True),  # 128 places, the most
        (dict(kernel_size=3, padding=1), (2, 8, 9), False),
        (dict(kernel_size=3, padding=1, stride=2), (2, 16, 16), True),
        (dict(kernel_size=3, padding=1, groups=2), (2, 2, 2), False),
        (dict(kernel_size=3, padding="same"), (2, 2, 2), False),
        (dict(kernel_size=3, padding=1, padding_mode="circular"), (2, 2, 2), False),
    ],
)
def test_it_is_one_for_few_places_alone(
    options: dict[str, object], places: tuple[int, int, int], is_product: bool
) -> None:
    layer = nn.Conv2d(1024, 1024, **options)  # type: ignore[arg-type]
    count, height, width = places
    shape = torch.Size((count, 1024, height, width))
    assert has_few_places(layer, layer.weight, shape) is is_product
    assert not has_few_places(layer, layer.weight.to("meta"), shape)
    assert not has_few_places(layer, layer.weight[:512], shape)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_large_layer_computes_and_learns_as_before(
    stored: torch.dtype, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, rows = layer_and_rows(dict(kernel_size=3, padding=1))
    plain.weight.data = plain.weight.data.to(stored).float()
    layer, _ = layer_and_rows(dict(kernel_size=3, padding=1))
    layer.weight.data = plain.weight.data.to(stored)
    learns = stored == torch.float32
    layer.weight.requires_grad_(learns)
    monkeypatch.setattr(few_places, "MANY_WEIGHTS", 1)
    monkeypatch.setattr(stored_layers, "MANY_WEIGHTS", 1)
    keep_as_stored(nn.Sequential(layer))
    assert type(layer) is StoredConvolution
    gradients = []
    for one in (plain, layer):
        given = rows.clone().requires_grad_(True)
        with autocast(precision, CPU):
            output = one(given)
        torch.autograd.backward(output.float().square().sum())
        assert given.grad is not None
        gradients.append((output, given.grad, one.weight.grad if learns else None))
    bound = 1e-5 if precision == "fp32" else 0.1
    for expected, found in zip(*gradients, strict=True):
        if expected is not None or learns:
            assert found.dtype == expected.dtype and torch.allclose(found, expected, rtol=1e-2, atol=bound)
