"""An optimiser's state as plain tensors, and the averaged weights of one that averages by itself."""

from collections.abc import Iterator, Mapping

import torch

# What of a group belongs to the state and not to the settings: Prodigy's estimate of the distance, from which its rate
# follows (Mishchenko and Defazio 2024), and schedule-free's place in its average (Defazio et al. 2024).
GROUP_SLOTS = ("k", "d", "d_max", "d_numerator", "weight_sum", "lr_max")
GROUP = "group "


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, torch.Tensor]:
    """The optimiser's state as flat tensors "<parameter>|<slot>"; names maps id(parameter) to its name.

    What a group has of it is under "group <number>|<slot>".
    """
    flat = {
        f"{GROUP}{number}|{slot}": _number(group[slot])
        for number, group in enumerate(optimiser.param_groups)
        for slot in GROUP_SLOTS
        if slot in group
    }
    seen: set[int] = set()
    for parameter, slots in optimiser.state.items():
        for slot, value in slots.items():
            tensor = value if isinstance(value, torch.Tensor) else _number(value)
            tensor = tensor.detach().cpu()
            # 8-bit states of all weights share one table of levels, which no file can hold twice.
            shared = tensor.data_ptr() in seen
            seen.add(tensor.data_ptr())
            flat[f"{names[id(parameter)]}|{slot}"] = tensor.clone() if shared else tensor
    return flat


def _number(value: float) -> torch.Tensor:
    """A plain number of an optimiser's state; a count stays a count."""
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def load_optimiser_tensors(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.nn.Parameter], flat: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what optimiser_tensors took out, on each parameter's own device; what was there before goes."""
    optimiser.state.clear()
    for group in optimiser.param_groups:
        group.update({slot: optimiser.defaults[slot] for slot in GROUP_SLOTS if slot in optimiser.defaults})
    for key, value in flat.items():
        name, slot = key.rsplit("|", 1)
        if name.startswith(GROUP):
            optimiser.param_groups[int(name.removeprefix(GROUP))][slot] = value.item()
            continue
        parameter = tensors[name]
        if value.dtype in (torch.float64, torch.int64) and value.ndim == 0:
            optimiser.state[parameter][slot] = value.item()
        elif value.shape == parameter.shape:
            # In the parameter's own strides: torch's fused AdamW pairs both by their place in memory.
            own = torch.empty_like(parameter, dtype=value.dtype, memory_format=torch.preserve_format)
            optimiser.state[parameter][slot] = own.detach().copy_(value)
        else:
            optimiser.state[parameter][slot] = value.clone().to(parameter.device)


def averages_itself(optimiser: torch.optim.Optimizer) -> bool:
    """Whether the weights of the result are an average that the optimiser makes by itself."""
    return "weight_sum" in optimiser.param_groups[0]


def own_averages(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.nn.Parameter]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights that schedule-free has averaged so far, one after another, by name; nothing of any other optimiser.

    Gradients are taken at y, between the average x and the iterate z: x = y + (1 - 1 / beta1) (z - y), by Defazio et
    al. 2024 ("The road less scheduled"), equation 6. Going to x and back would change last bits of y: so y stays.
    """
    if not averages_itself(optimiser):
        return
    beta1 = {id(one): group["betas"][0] for group in optimiser.param_groups for one in group["params"]}
    for name, tensor in tensors.items():
        iterate = optimiser.state[tensor].get("z") if tensor in optimiser.state else None
        between = tensor.detach()
        yield name, between if iterate is None else between.lerp(iterate, 1 - 1 / beta1[id(tensor)])


def used_rate(optimiser: torch.optim.Optimizer) -> float:
    """The learning rate of the first group's last step, with the factor that Prodigy found by itself."""
    group = optimiser.param_groups[0]
    rate: float = group["lr"] * group.get("d", 1.0)
    return rate
