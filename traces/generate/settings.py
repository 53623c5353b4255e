"""What the settings of every generator share: strict, frozen, and numbers within sensible limits."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Unknown settings and text for numbers are refused."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
"""Per second."""
Points = Annotated[
    tuple[Annotated[tuple[NotNegative, NotNegative], Field(strict=False)], ...],
    Field(strict=False, min_length=2),  # a list from YAML is taken for a tuple; the numbers in it stay strict
]
"""Two points or more of a piecewise linear curve, `[[x, y], …]`."""
