"""What a node's links and drives give one deployment.

A deployment of g GPUs uses min(g, host_links) links at once: under tensor parallelism every rank moves its own shard of the KV. All
links together are capped by the DRAM's bandwidth. Drives are striped, so bandwidths add up and the latency is one drive's.

KV of which ranks hold copies (MLA, fewer heads than ranks) crosses the host links once; the interconnect spreads it in no time.

Left out: PCIe lanes that SSD and GPU traffic share, NUMA hops, deployments beside this one on the same node.
"""

from kvplan.hwmodels.schema import Link, Node, Ssd


def host_bandwidth(node: Node, link: Link, gpus: int) -> tuple[float, float]:
    """Bytes per second from host to `gpus` GPUs, and back."""
    links = min(gpus, node.host_links.value)
    ceiling = node.dram_bandwidth.value if node.dram_bandwidth is not None else float("inf")
    return min(links * link.host_to_device.value, ceiling), min(links * link.device_to_host.value, ceiling)


def ssd_bandwidth(ssd: Ssd, drives: int) -> tuple[float, float]:
    """Bytes per second that so many drives read together, and write."""
    return drives * ssd.read_bandwidth.value, drives * ssd.write_bandwidth.value
