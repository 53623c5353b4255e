"""The question that people come with: the fewest GPUs, and the cheapest DRAM and SSD, that meet a target at a load."""
