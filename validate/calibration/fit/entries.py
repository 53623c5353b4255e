"""Catalogue files of a measured machine: a node with its GPU, link, SSD and calibration, all under the machine's name.

What was measured is written as it came out; what a catalogue entry needs beside that and no measurement tells (the endurance of a
drive, prices) is an assumption, or comes from the command line, and says so. A GPU entry made of measurements holds the rates that
the largest measured model reached, at efficiency 1, so that the roofline speaks for models that were not measured.
"""

from pathlib import Path

import yaml

from kvplan.sim.files.atomic import write_text
from kvplan.validate.calibration.fit.least_squares import Fit
from kvplan.validate.calibration.fit.links import FittedLink
from kvplan.validate.calibration.fit.steps import FittedModel
from kvplan.validate.calibration.kernels.shape import ModelShape

DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class Entries:
    """Makes the files of one machine. `source` is the command, `date` when it was measured."""

    def __init__(self, name: str, header: dict, source: str, date: str):
        self._name, self._header, self._source = name, header, source
        self._about = {"name": name, "description": f"{self._description()}, by {source}", "date": date}

    def _description(self) -> str:
        machine = self._header["machine"]
        threads = f", {self._header['threads']} thread" if self._header["device"] == "cpu" else ""
        return f"Measured: {machine.get('gpu', machine['cpu'])}{threads}, PyTorch {self._header['versions']['torch']}"

    def calibration(self, models: list[FittedModel]) -> dict:
        """The step times of all measured models, on one GPU."""
        steps = []
        for fitted in models:
            sizes = ModelShape(**self._header["models"][fitted.model])
            steps.append(
                {
                    "model": fitted.model,
                    "torch_dtype": fitted.dtype,
                    "layers": fitted.layers,
                    "decoder_parameters": sizes.weights_per_layer * fitted.layers,
                    "gpus": 1,
                    **{name: _rounded(value) for name, value in fitted.coefficients.items()},
                    **fitted.spans,
                    "prefill_error": _rounded(fitted.errors["prefill"].mean_error),
                    "decode_error": _rounded(fitted.errors["decode"].mean_error),
                }
            )
        return {**self._about, "source": self._source, "steps": steps}

    def gpu(self, fitted: FittedModel) -> dict:
        """The device as one model saw it. Raises ValueError when the fit gives no rates."""
        sizes, found = ModelShape(**self._header["models"][fitted.model]), fitted.coefficients
        if not found["per_token"] or not found["fixed"]:
            raise ValueError(f"{fitted.model}: the fit gives no arithmetic or no memory rate: measure more points, or name a --gpu")
        parameters = sizes.weights_per_layer * fitted.layers
        read = (parameters + sizes.vocab_size * sizes.hidden_size) * DTYPE_BYTES[fitted.dtype]
        pairs = 4 * fitted.layers * sizes.num_attention_heads * sizes.head_dim
        flops = 2 * parameters / found["per_token"]
        attention = min(1.0, pairs / found["per_pair"] / flops) if found["per_pair"] else 1.0
        machine = self._header["machine"]
        by = f"fit to {fitted.model}, {fitted.dtype}"
        return {
            **self._about,
            "peak_flops": _row(flops / 1e9, "GFLOP/s", f"measured: reached in prefill, {by}"),
            "hbm": _row(machine.get("hbm_bytes", machine["dram_bytes"]) / 2**30, "GiB", "PyTorch or the kernel says so"),
            "hbm_bandwidth": _row(read / found["fixed"] / 1e9, "GB/s", f"measured: all weights / fixed time of a step, {by}"),
            "gemm_efficiency": _row(1, "1", "peak_flops is what was reached"),
            "attention_efficiency": _row(attention, "1", f"measured: attention against peak_flops, at most 1, {by}"),
            "hbm_efficiency": _row(1, "1", "hbm_bandwidth is what was reached"),
            "layer_overhead": _row(0, "us", "in the fixed time of a step"),
        }

    def link(self, to_device: FittedLink, to_host: FittedLink, memory: str) -> dict:
        """The host link."""
        return {
            **self._about,
            "host_to_device": _row(to_device.bandwidth / 1e9, "GB/s", f"measured: {memory} memory, {_error(to_device.fit)}"),
            "device_to_host": _row(to_host.bandwidth / 1e9, "GB/s", f"measured: {memory} memory, {_error(to_host.fit)}"),
            "latency": _row(to_device.latency_s * 1e6, "us", "of the fit, host to device"),
        }

    def ssd(self, read: FittedLink, write: FittedLink, read_depth: str, write_depth: str) -> dict:
        """The drive, or whatever is below the file system."""
        how = "O_DIRECT" if self._header["machine"]["direct_io"] else "page cache not bypassed"
        return {
            **self._about,
            "capacity": _row(3.84, "TB", "assumption: the drive is not known"),
            "read_bandwidth": _row(read.bandwidth / 1e9, "GB/s", f"measured: {how}, queue depth {read_depth}, {_error(read.fit)}"),
            "write_bandwidth": _row(write.bandwidth / 1e9, "GB/s", f"measured: {how}, queue depth {write_depth}, {_error(write.fit)}"),
            "latency": _row(read.latency_s * 1e6, "us", "of the fit, reads"),
            "rated_dwpd": _row(1, "DWPD", "assumption: the drive is not known"),
            "warranty": _row(5, "years", "assumption: the drive is not known"),
        }

    def node(self, gpu: str) -> dict:
        """One GPU of that name with the link and the drive above."""
        dram = self._header["machine"]["dram_bytes"] / 2**30
        return {
            **self._about,
            "gpu": gpu,
            "max_gpus": _row(1, "1", "one was measured"),
            "interconnect_bandwidth": _row(1, "GB/s", "assumption: not used by one GPU"),
            "interconnect_latency": _row(0, "us", "assumption: not used by one GPU"),
            "host_link": self._name,
            "host_links": _row(1, "1", "one was measured"),
            "max_dram": _row(dram, "GiB", "the kernel says so"),
            "ssd": self._name,
            "ssd_drives": _row(1, "1", "measured as one"),
        }

    def prices(self, gpu: str, usd_per_h: float) -> dict:
        """The rent of the whole machine as the GPU's."""
        return {
            **self._about,
            "gpus": {gpu: _row(usd_per_h, "USD/h", "rent of the machine, as given")},
            "dram": _row(0, "USD/GB/h", "part of the machine's rent"),
            "ssd": _row(0, "USD/GB/h", "part of the machine's rent"),
        }


def write_entry(folder: Path, kind: str, entry: dict) -> Path:
    """Writes one entry into a user's catalogue, whole or not at all. Raises WriteError."""
    path = folder / kind / f"{entry['name']}.yaml"
    write_text(path, yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000))
    return path


def _row(value: float, unit: str, source: str) -> dict:
    return {"value": _rounded(value), "unit": unit, "source": source}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _error(fit: Fit) -> str:
    return f"{len(fit.errors)} points, cross-validated error {fit.mean_error:.1%}"
