"""Which step times a simulation uses: measured ones where a calibration has them, the roofline elsewhere."""

from kvplan.hwmodels import catalogue
from kvplan.hwmodels.datasheet import roofline
from kvplan.hwmodels.schema import Gpu, Model, Node
from kvplan.hwmodels.steptime import StepTime


def step_time(model: Model, gpu: Gpu, node: Node, gpus: int, folder: str | None = None) -> StepTime:
    """Step times of `model` on `gpus` GPUs of `node`: measured ones where the calibration of that node's name has them.

    `folder` is a user's catalogue, or None. `StepTime.source` and `StepTime.measured` say which they are. Raises CatalogueError.
    """
    if node.name in catalogue.names("calibration", folder):
        calibration = catalogue.load("calibration", node.name, folder)
        for fitted in calibration.steps:
            if fitted.is_for(model, gpus):
                return fitted.step_time(f"measured: {model.name} on {gpus} x {gpu.name}, {calibration.source}", model)
    return roofline(model, gpu, node, gpus)
