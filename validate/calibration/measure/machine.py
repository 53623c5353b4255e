"""What a machine is, as far as it tells: the header of its measurements."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

_GPU_FIELDS = ("driver_version", "pcie.link.gen.max", "pcie.link.width.max", "power.limit")


def identity(device: str, folder: Path, direct_io: bool) -> dict:
    """Machine, versions and settings that all measurements in a folder share. `folder` is where SSD files are written."""
    return {
        "device": device,
        "machine": {
            "cpu": _line("/proc/cpuinfo", "model name"),
            "cpu_cores": os.cpu_count(),
            "dram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "file_system": file_system(folder),
            "direct_io": direct_io,
            **(_gpu() if device == "cuda" else {}),
        },
        "versions": {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            **({"cuda": torch.version.cuda} if device == "cuda" else {}),
        },
        "threads": torch.get_num_threads(),
        "execution": "eager",
    }


def cache_bytes(device: str) -> int:
    """Bytes of the last-level cache; 64 MiB where the machine does not say."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).L2_cache_size
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 64 * 2**20


def free_bytes(device: str) -> int:
    """Bytes of device memory that can be had now; on the CPU those of the host."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return host_free_bytes()


def host_free_bytes() -> int:
    """Bytes of host memory that can be had now."""
    return int(_line("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def file_system(folder: Path) -> str:
    """Type of the file system that holds `folder`, by the longest mount point above it."""
    place, best, kind = str(folder.resolve()), "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if f"{place}/".startswith(f"{mount.rstrip('/')}/") and len(mount) > len(best):
            best, kind = mount, name
    return kind


def this_run() -> dict:
    """The command that is running, as one would type it, when, and how busy the machine is with other things (its load average)."""
    command = " ".join(["kvplan validate", *sys.argv[1:]])
    return {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), "load_1_min": round(os.getloadavg()[0], 2)}


def _gpu() -> dict:
    """Of GPU 0, by PyTorch and nvidia-smi; "unknown" for what that does not say."""
    properties = torch.cuda.get_device_properties(0)
    found = {"gpu": properties.name, "hbm_bytes": properties.total_memory, "multiprocessors": properties.multi_processor_count}
    try:
        query = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip().split(", ")
    except (OSError, subprocess.SubprocessError):
        answer = ["unknown"] * len(_GPU_FIELDS)
    return found | dict(zip(_GPU_FIELDS, answer, strict=True))


def _line(path: str, name: str) -> str:
    """What follows the colon of the first line that begins with `name`; "unknown" when there is none."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
