"""Bytes of sessions and of jobs, layer by layer, by tokens that are counted one at a time."""

from bisect import bisect_right

from kvplan.hwmodels import kvsize
from kvplan.sim.deployment import Deployment

AHEAD = 20
"""Steps that are looked ahead to, whether answers end before or not."""


class Sizes:
    """Of up to a window of tokens, and in HBM of some more. `shortest` is that of the layers which keep the fewest tokens in a store."""

    def __init__(self, deployment: Deployment) -> None:
        model, gpus, tokens = deployment.model, deployment.gpus, range(deployment.window + 1 + AHEAD)
        self.layers = model.layers
        self.apart = bool(deployment.kv.windows)
        keeps: kvsize.Keeps = "windowed" if self.apart else "every-token"
        self.longest = model.max_position_embeddings
        windows = [group.kind.window for group in self.layers if group.kind.window is not None]
        self.state = sum(group.count * group.kind.state_bytes for group in self.layers)
        self.shortest = 0 if self.state else min(windows) if self.apart else deployment.window
        self.stored = [0, *(kvsize.kv_bytes(model, each, keeps) for each in tokens[1:])]

        self.ranks = []
        for group in self.layers:
            copies, of = group.kind.copies(gpus)
            self.ranks.append(group.count * group.kind.token_bytes(model.kv_bits) // of * copies)
        self.in_hbm = [0, *(self._layers(each) + self.state for each in tokens[1:])]

    def _layers(self, tokens: int, windows_only: bool = False) -> int:
        """Bytes in all ranks that layers keep of so many tokens."""
        ranks = zip(self.ranks, self.layers, strict=True)
        return sum(
            each * group.kind.kept(tokens)
            for each, group in ranks
            if not windows_only or (group.kind.window or self.longest) < self.longest
        )

    def tokens(self, size: int) -> int:
        """Of a stored session."""
        return bisect_right(self.stored, size) - 1

    def written(self, before: int, after: int) -> int:
        """Bytes that come in when a session of `before` bytes grows to `after`: of a layer with a window, those of the last tokens."""
        return self.stored[max(0, self.tokens(after) - self.tokens(before))]

    def first(self, size: int, tokens: int) -> int:
        """Of a session's bytes those that are of use when only its first tokens are: without the window at their end, none."""
        held = self.tokens(size)
        if held <= tokens:
            return size
        return self.stored[tokens] if held <= self.shortest else 0

    def without(self, size: int, cut: int) -> int:
        """Of a session's bytes those that are of use without its oldest tokens."""
        return 0 if cut and self.state else self.stored[max(0, self.tokens(size) - cut)]

    def window_bytes(self, history: int, prompt: int, output: int) -> int:
        """That a decode step of a job reads of windows, in the mean, rounded down, and of states, which it writes too."""
        steps = range(history + prompt + 1, history + prompt + output)
        return sum(self._layers(tokens, windows_only=True) for tokens in steps) // len(steps) + 2 * self.state if steps else 0
