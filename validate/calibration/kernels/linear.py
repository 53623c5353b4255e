"""Products of activations with weights that never change.

In float32 on a CPU the weights are packed once for oneDNN's kernels, as inference engines do it. Without that, every product of two rows
or more orders all of them anew: on a Cascade Lake core a decode step of 2 jobs took 1.9 times as long as one of a single job, and one
of 8 jobs 1.5 times as long as with packed weights.
"""

import torch
from torch import Tensor


class Linear:
    """x @ weight for a weight [inputs, outputs]."""

    def __init__(self, weight: Tensor):
        self.parameters = weight.numel()
        self._weight = weight
        self._is_packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., outputs] of [..., inputs]."""
        if self._is_packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return x @ self._weight
