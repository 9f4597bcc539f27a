"""What a base's denoiser predicts, and whether its noise schedule ends in pure noise, as a file says it of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbcli.errors import ConfigError, UnsupportedFile

EPSILON, V = "epsilon", "v_prediction"
PREDICTION_TYPES = (EPSILON, V)
# What a denoiser of flow matching predicts: the velocity from the image to the noise. Nobody chooses it.
FLOW = "flow"

# Where programs write it, the first that is there counts: ModelSpec, ComfyUI, then trainers' own keys.
_KEYS = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type", "ss_prediction_type")
_SPELLINGS = {
    **dict.fromkeys(("epsilon", "eps", "epsilon_prediction", "eps_prediction", "noise"), EPSILON),
    **dict.fromkeys(("v", "v_prediction", "v_pred", "vpred", "vprediction", "velocity", "v_parameterization"), V),
}
# Keys that say yes or no.
_V_KEYS = ("ss_v_parameterization", "v_parameterization", "v_pred")
_ZERO_SNR_KEYS = ("ss_zero_terminal_snr", "zero_terminal_snr", "ztsnr", "modelspec.ztsnr", "rescale_betas_zero_snr")
# Empty tensors by which merged models are marked; AUTOMATIC1111 and ComfyUI know them by these names.
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"


@dataclass(frozen=True)
class Said:
    """What a file says: `prediction` is None where it says nothing."""

    prediction: str | None
    zero_snr: bool


def said_by(names: set[str], metadata: Mapping[str, str], where: str) -> Said:
    """What marks and metadata of a single file say; the marks count first, as they are what other programs follow.

    Zero terminal SNR goes with v alone: from pure noise there is no noise to predict. Raises UnsupportedFile for a
    prediction that cannot be trained.
    """
    zero_snr = ZERO_SNR_MARK in names or any(_is_yes(metadata.get(key, "")) for key in _ZERO_SNR_KEYS)
    if V_MARK in names or ZERO_SNR_MARK in names or any(_is_yes(metadata.get(key, "")) for key in _V_KEYS):
        return Said(V, zero_snr)
    for key in _KEYS:
        stated = metadata.get(key, "").strip()
        if stated:
            found = _SPELLINGS.get(stated.lower().replace("-", "_").replace(" ", "_"))
            if found is None:
                raise UnsupportedFile(
                    f"{where} predicts {stated!r} ({key}); only {' and '.join(PREDICTION_TYPES)} can be trained.",
                    hint="If that is wrong: init --prediction-type epsilon, or init --prediction-type v_prediction.",
                )
            return Said(found, zero_snr and found == V)
    return Said(V if zero_snr else None, zero_snr)


def marks(scheduler: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the empty tensors that mark a checkpoint of this scheduler for other programs."""
    if scheduler.get("prediction_type") != V:
        return ()
    return (V_MARK, ZERO_SNR_MARK) if scheduler.get("rescale_betas_zero_snr") else (V_MARK,)


def _is_yes(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes")


def checked_prediction(wanted: str | None) -> str | None:
    """A person's choice. Raises ConfigError for another word than PREDICTION_TYPES."""
    if wanted not in (None, *PREDICTION_TYPES):
        raise ConfigError(
            f"The prediction type {wanted!r} is not one of {', '.join(PREDICTION_TYPES)}.",
            hint="--prediction-type epsilon, or --prediction-type v_prediction",
        )
    return wanted


def settle(scheduler: dict[str, Any], override: str | None, where: str) -> None:
    """Writes into a scheduler's settings what the base predicts; a person's choice has the last word.

    Raises UnsupportedFile where it cannot be trained.
    """
    found = override or scheduler.get("prediction_type") or EPSILON
    if found not in PREDICTION_TYPES:
        raise UnsupportedFile(
            f"{where} predicts {found!r}; only {' and '.join(PREDICTION_TYPES)} can be trained.",
            hint="Choose another base.",
        )
    scheduler["prediction_type"] = found
    if found == EPSILON and scheduler.get("rescale_betas_zero_snr"):
        if override is None:
            raise UnsupportedFile(
                f"{where} predicts epsilon with zero terminal SNR: pure noise leaves it nothing to learn.",
                hint="init --prediction-type v_prediction; with epsilon, zero terminal SNR is not used",
            )
        scheduler["rescale_betas_zero_snr"] = False


def settle_flow(scheduler: dict[str, Any], override: str | None, where: str) -> None:
    """Writes into a flow-matching scheduler's settings what its base predicts; a choice of it raises ConfigError."""
    if override is not None:
        raise ConfigError(
            f"--prediction-type {override}: {where} is a flow-matching model, which predicts a velocity.",
            hint="Leave --prediction-type out.",
        )
    scheduler["prediction_type"] = FLOW
