"""Step times that were measured: a calibration belongs to the node of its name and holds coefficients of models that ran there.

`kvplan validate fit` writes them; `kvplan.hwmodels.steps` looks them up.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.schema import DTYPE_BYTES, Date, Model
from kvplan.hwmodels.steptime import COEFFICIENTS, Measured, StepTime

_Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
_Span = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
_Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FittedSteps(BaseModel):
    """Coefficients of `kvplan.hwmodels.steptime` for one model, in seconds, with the span and the error of what they were fitted to."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    model: str
    torch_dtype: str
    layers: Annotated[int, Field(gt=0)]
    decoder_parameters: Annotated[int, Field(gt=0)]
    gpus: Annotated[int, Field(gt=0)]
    fixed: _Seconds
    per_token: _Seconds
    per_pair: _Seconds
    per_history: _Seconds
    per_context: _Seconds
    new: _Span
    history: _Span
    batch: _Span
    context: _Span
    prefill_error: _Error
    decode_error: _Error

    def is_for(self, model: Model, gpus: int) -> bool:
        """Whether these are the steps of that very model: name, dtype and size."""
        own = (self.model, self.torch_dtype, self.layers, self.decoder_parameters, self.gpus)
        return own == (model.name, model.torch_dtype, model.num_hidden_layers, kvsize.decoder_parameters(model), gpus)

    def step_time(self, source: str, model: Model) -> StepTime:
        """The StepTime that they describe. Measured is KV in the dtype of activations: a decode step reads narrower KV faster, and what
        history costs a prefill is left as it is."""
        narrower = float(model.kv_bits / (8 * DTYPE_BYTES[model.torch_dtype]))
        return StepTime(
            layers=self.layers,
            **{name: getattr(self, name) for name in COEFFICIENTS} | {"per_context": narrower * self.per_context},
            source=source,
            measured=Measured(
                **{span: tuple(getattr(self, span)) for span in ("new", "history", "batch", "context")},
                prefill_error=self.prefill_error,
                decode_error=self.decode_error,
            ),
        )


class Calibration(BaseModel):
    """What was measured on one node."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    name: str
    description: str = ""
    date: Date
    source: str
    steps: list[FittedSteps]
