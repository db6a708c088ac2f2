"""The options that a search by Optuna tries, and their values, read from Hydra's overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from fer.core.errors import ConfigError

if TYPE_CHECKING:
    import optuna

EXAMPLE = "'optimizer.lr=tag(log, interval(1e-4, 1e-2))'"


@dataclass(frozen=True)
class Dimension:
    """An option that is searched, and its values."""

    key: str
    """As in an override, with the + of a key that is added."""
    kind: str
    """``float``, ``int`` or ``choice``."""
    low: float = 0
    high: float = 0
    """Both ends are among the values."""
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()
    """As texts of the command line."""

    @property
    def name(self) -> str:
        """The key alone: the parameter's name in the study."""
        return self.key.lstrip("+~")

    def suggest(self, trial: optuna.trial.Trial) -> None:
        """Let the study choose a value for ``trial``."""
        if self.kind == "choice":
            trial.suggest_categorical(self.name, self.choices)
        elif self.kind == "int":
            step = 1 if self.step is None else int(self.step)
            trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        else:
            trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Any) -> str:
        """The override that sets the option to ``value``, a float in full.

        >>> Dimension("a", "float", 0.1, 0.5, step=0.1).override(0.1 + 2 * 0.1)
        'a=0.3'
        """
        if self.kind == "float" and self.step is not None:
            value = _stepped(self.low, self.step, round((value - self.low) / self.step))
        return f"{self.key}={value}"


def _stepped(low: float, step: float, count: int) -> float:
    """``low + count * step`` in decimal digits, as one writes it."""
    return float(Decimal(repr(low)) + count * Decimal(repr(step)))


def read_space(
    params: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser
) -> tuple[list[Dimension], list[str]]:
    """The options that are searched, and the overrides that every job shares.

    Those of the command line replace the values of the same key in ``hydra.sweeper.params``.

    Raises:
        ConfigError: nothing is searched, or something cannot be.
    """
    nested = [f"{key}: {value}" for key, value in params.items() if isinstance(value, Mapping)]
    try:
        overrides = parser.parse_overrides([*(f"{k}={v}" for k, v in params.items()), *arguments])
    except HydraException as error:
        nested.append(str(error))
    if nested:
        raise ConfigError(
            f"hydra.sweeper.params: expected values below each key, such as {EXAMPLE}, found "
            f"{nested[0]}"
        )
    by_key = {override.get_key_element(): override for override in overrides}
    swept = {key: item for key, item in by_key.items() if item.is_sweep_override()}
    if not swept:
        raise ConfigError(
            "hydra.sweeper.params: expected options to search, found none. Pass one as "
            f"{EXAMPLE}, or choose the space in conf/sweep/optuna.yaml"
        )
    for key in swept:
        name = key.lstrip("+~")
        # dataset.leaks changes training images alone.
        if name.partition(".")[0] == "dataset" and name != "dataset.leaks":
            raise ConfigError(
                f"hydra.sweeper.params: expected options that leave the validation images as they "
                f"are, found {key}: scores on different images choose nothing. Search each dataset "
                f"on its own, with {key}=VALUE"
            )
    space = [make_dimension(key, item) for key, item in swept.items()]
    return space, [str(item.input_line) for key, item in by_key.items() if key not in swept]


def make_dimension(key: str, override: Override) -> Dimension:
    """The values of an override that has several."""
    value = override.value()
    allowed = {"log"} if isinstance(value, IntervalSweep) else set()
    tags = sorted(getattr(value, "tags", set()) - allowed)
    if isinstance(value, IntervalSweep):
        dimension = _make_interval(key, value)
    elif isinstance(value, RangeSweep):
        dimension = _make_range(key, value)
    else:
        choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
        dimension = Dimension(key, "choice", choices=choices) if choices else None
    if dimension is None or tags:
        raise ConfigError(
            f"{override.input_line}: expected at least one value, from the lower to the higher and "
            "above 0 on a logarithmic scale, and no tag but log for an interval, found "
            f"{', '.join(tags) or 'none'}. Write it like {EXAMPLE}"
        )
    return dimension


def _make_interval(key: str, value: IntervalSweep) -> Dimension | None:
    """Make an interval; None where it would be empty."""
    low, high, log = value.start, value.end, "log" in value.tags
    assert low is not None and high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (log and low <= 0):
        return None
    if isinstance(low, int) and isinstance(high, int):
        return Dimension(key, "int", low, high, log=log)
    return Dimension(key, "float", float(low), float(high), log=log)


def _make_range(key: str, value: RangeSweep) -> Dimension | None:
    """The values that a grid would take, without the upper end; None where there are none."""
    step = abs(value.step)
    values = sorted(value.range()) if step else []
    if not values:
        return None
    if all(isinstance(item, int) for item in values):
        return Dimension(key, "int", values[0], values[-1], step=step)
    low = float(values[0])
    return Dimension(key, "float", low, _stepped(low, step, len(values) - 1), step=step)


def example(space: Sequence[Dimension], fixed: Sequence[str]) -> list[str]:
    """The overrides of some job."""
    return [*fixed, *(d.override(d.choices[0] if d.kind == "choice" else d.low) for d in space)]
