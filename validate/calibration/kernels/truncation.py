"""How far a cut KV cache is from recomputing what was kept: hidden states layer by layer, and logits; a minute.

After truncation CachedAttention goes on with KV that was computed while the cut tokens were still there. Attention over it is exact,
at positions that start from 0 again; what differs from recomputing is the kept KV itself, in every layer but the first, whose K and V
depend on nothing but their own token. Embedded positions keep the old angles as well, so new tokens stand at the wrong distance.

The weights are random: attention is spread far wider than in a trained model, and nothing here speaks of the quality of its
answers (the paper: perplexity within 0.02). What is shown is how the error arises and grows with depth and with the share cut.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kvplan.validate.calibration.kernels import kvcache, shape
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.calibration.kernels.rope import rotate

MODEL, LAYERS = "qwen2.5-0.5b", 24
BATCH, KEPT, NEW = 4, 128, 16
CUTS = (16, 128, 384)


@dataclass(frozen=True)
class TruncationError:
    """Of one way of going on after truncation, against recomputing the kept tokens."""

    by_layer: list[float]
    """‖reused − recomputed‖ / ‖recomputed‖ of the new tokens' hidden states after each layer."""
    cosine: float
    """Of the logits after the last new token, mean over the batch."""


def truncation_errors(decoder: Decoder, tokens: Tensor, cut: int, new: int) -> dict[str, TruncationError]:
    """Errors of prefilling the last `new` of `tokens`, [batch, all], on the KV of those before them without its oldest `cut`.

    By how the KV was saved: "decoupled" (K before RoPE) or "embedded" (K keeps the positions that it had).
    """
    batch, total = tokens.shape
    history = total - new
    _, saved = decoder.prefill(tokens[:, :history], decoder.room(batch, history))
    kept = kvcache.truncate(saved, cut)
    _, again = decoder.prefill(tokens[:, cut:history], decoder.room(batch, history - cut))
    true, true_logits = _go_on(decoder, tokens[:, history:], again, None)
    found = {}
    for positions, first in (("decoupled", None), ("embedded", cut)):
        reused, logits = _go_on(decoder, tokens[:, history:], kept, first)
        found[positions] = TruncationError(
            by_layer=[float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(reused, true, strict=True)],
            cosine=float(torch.cosine_similarity(logits, true_logits, dim=-1).mean()),
        )
    return found


def _go_on(decoder: Decoder, tokens: Tensor, saved: list[Tensor], first_position: int | None) -> tuple[list[Tensor], Tensor]:
    """Hidden states after each layer, and logits. With a `first_position` K keeps positions that start there, as embedded ones do."""
    batch, history = saved[0].shape[:2]
    working = decoder.room(batch, history + tokens.shape[1])
    place = decoder.place_prefill(history, tokens.shape[1])
    x, states = decoder.embed(tokens), []
    for index, (kv, layer_saved) in enumerate(zip(working, saved, strict=True)):
        kvcache.load_(kv, layer_saved)
        if first_position is None:
            x, _ = decoder.layer(index, x, kv, place)
        else:
            kv[:, :history, 0] = rotate(layer_saved[:, :, 0], decoder.rope.span(first_position, first_position + history))
            x, _ = decoder.layers[index](x, kv, place)
        states.append(x)
    return states, decoder.logits(x)


def run() -> None:
    """Prints the table."""
    from kvplan.validate.show import show

    decoder = Decoder(shape.read_shape(MODEL), LAYERS, "float32", positions=KEPT + NEW + max(CUTS))
    generator = torch.Generator().manual_seed(1)
    cells = []
    for cut in CUTS:
        tokens = torch.randint(decoder.shape.vocab_size, (BATCH, cut + KEPT + NEW), generator=generator)
        for positions, error in truncation_errors(decoder, tokens, cut, NEW).items():
            layers = [error.by_layer[index] for index in (0, 1, LAYERS // 2, LAYERS - 1)]
            cells.append([f"{cut:,}", positions, *(f"{each:.2g}" for each in layers), f"{error.cosine:.4f}"])
    columns = ["tokens cut", "positions", "layer 1", "layer 2", f"layer {LAYERS // 2 + 1}", f"layer {LAYERS}", "logit cosine"]
    show(f"{MODEL}'s shape, random weights: {NEW} new tokens on {KEPT} kept, against recomputing them", columns, cells)
