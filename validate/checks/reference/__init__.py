"""A second simulator, slow and plain: one step at a time, scanning queue and store for every decision.

It is written from the specification (DESIGN.md and the CachedAttention paper) and shares no code with `sim`'s engine, store and policies:
no event heap, no closed forms, no orders kept up to date. What a configuration means in seconds and bytes (`StepTime`, `Deployment`), and
which replica a session that stays goes to, is common to both. `kvplan validate reference` compares the two, event by event, on random
small cases.

It covers DRAM and SSD, each of which can be off; connectors of all kinds; first come, first served; batching `iteration`, `chunked` and
`prefill-first`; jobs that start with HBM for their answers, for their prompts, or by a share, and give way; eviction `lru`, `fifo`,
`lookahead`; prefetch `none`, `lookahead`, and of chunks HiCache's; loading layer by layer, before the prefill, and asynchronously;
asynchronous and synchronous saving; write-back of deltas and of whole sessions; truncation with decoupled and embedded positions; TTLs;
turns that drop history; several replicas; clients of load tests; the warm-up cut; blocks in HBM (vLLM's pool or SGLang's tree, token by
token), with tiers of chunks below, or of a model with windows or states, contexts known by hashes, and sessions that do not stay. It
refuses what it does not know (`NOT_JUDGED`), so that nothing here speaks for it.

It counts for itself, and afterwards: it keeps every step, every transfer and every change of a tier as it happened, and adds up at the
end what of them lies within the measured span. One sum is known to differ: a save that starts before the warm-up ends, but is known of
only after that, has taken the link from a demotion meanwhile; the engine has counted the demotion as if it had not.

What the specification leaves open:

- *Equal times.* Moves end first (the fetch before the demotion), then turns arrive (in the order in which that became known; a session
  becomes known when the one before it comes), then the GPU's step ends. Turns that end in one step end in the order of the workload. A turn
  whose time has come when its predecessor ends joins the queue within that step. Steps of several replicas: the first replica's first.
- *A client's turns.* An answer makes turns ready (a round's in the order of the answers), and then what may be sent is, before the next
  answer of that step. Of n turns that are ready in a row, random order takes the one at n times the next number drawn, rounded down, and
  the last one takes its place. Turns that become ready by themselves, and a pace that allows one, are arrivals as far as equal times go.
- *Moves start*, the fetch first and one of each at a time, when a move ends; when a turn joins the queue and nothing is being fetched; and
  after a step, when a turn was admitted or has ended since the last one.
- *A fetch* is of the foremost of the first L_pw = C_mem / S_kv waiting jobs whose KV is on SSD and fits beside DRAM's reserve, if there
  is room. C_mem is DRAM less its reserve less what running sessions hold there; S_kv is the mean of all sizes offered for saving. What is
  fetched for waiting jobs stays within C_mem. A fetch whose KV becomes void on the way goes on, for nobody.
- *Room* for a save, a fetch or KV that was loaded from SSD is free, or is given up at once from the head of the order: in DRAM by sessions
  of which SSD has all; it ends at the first that cannot, and those before it have left. In the last tier any can, but none does when all
  together are not enough. For a fetch, and for a demotion that only a fetch asks for, it also ends at a session whose job comes sooner than
  the one fetched for.
- *A demotion* is due when less than the reserve is free, or less than a fetch waits for. Where SSD cannot make room, what it lacks of the
  session is lost.
- *A save larger than DRAM* goes to SSD. So does one without room in DRAM, unless the GPU would have to wait for longer than computing
  that KV again takes; then it is skipped. The reserve of a tier that had no room grows to what was missing, up to half of the tier.
- *Order.* A session is used when its turn ends, in each tier that holds some of it, and in SSD when it is demoted and nothing of it was
  there. It came to a tier at the first of these. What moves, runs, or was fetched for a waiting job does not leave.
- *Links* take their latency once per transfer, and per layer for a load; a link is busy for bytes and one latency of each. KV that a job
  must have from SSD waits for the piece of a fetch that is under way, and delays the rest of it; it takes the slower link's time per
  layer, and the faster one's for one layer more. KV that is being fetched when its job starts comes in even layers until the fetch ends.
- *A connector* deals with the request of a load before its first byte moves: from when KV in DRAM can be read ahead, else from when the job
  starts; no link is taken by that. Of a history it keeps and loads whole blocks only; a block that is cut into is lost. What is saved ends
  with the last whole block, of the prompt where answers are not saved; nothing is, where there is no whole block.
- *Synchronous saving* copies what is new after the prefill, and the answer's KV at its end; what waits or runs stalls until then. Where the
  save goes to another tier than the first, its links have had nothing yet.
- *A dtype of a tier* makes its bytes of KV fewer, and those on every link to it and from it; a move goes in the dtype of the lower tier.
- *A TTL* counts from a turn's end to the next one's arrival, over when more has passed. KV leaves when any turn comes or starts after
  that; what moves, once it has arrived, and when its own turn comes. A block's counts from the end of its last use to the start of the next
  job that has it; so does a chunk's, whose uses are named below.
- *A turn that drops history* cuts every copy to what it goes on from when it comes.
- *Chunks* of blocks are in use while their context is loaded and prefilled, or some of it is on its way. When a use ends, they are the
  last to go, tail before head; so they are when they are offered, and when their job ends. A prompt's are offered when its prefill has
  ended, before that those that it has loaded may go; an answer's, with the prompt's, when it ends, where it fills any. Nothing of it is
  stored where all that is missing does not fit beside what is in use. A lookup finds the first chunks that have come to DRAM, and behind
  them those on SSD that DRAM has room for, where none is on its way: these come up, also such as HBM has, and then the job loads what HBM
  lacks; of less than one chunk nothing. What comes to DRAM is offered to SSD at once. Jobs whose KV has come go before the queue, in the
  order in which it came, and others find in HBM what they have loaded asynchronously.
- *Chunks that several have to offer* are stored when so many jobs have offered them while they were not there, and those before them are
  there. Who offers a prompt's again with its answer's counts once. Offers are never forgotten, where the engine forgets after 64,000.
- *Chunks in the order of sessions* (`fifo`, `lookahead`) are of the session whose use of them ended last, and leave with it, first those
  used longest ago. It has its place from when its turn ends for which they came, or from when it has any after that; each turn that ends
  is a use. What that has not used goes before all others; what others go on from goes after these, and then first. A session that runs is
  passed over, until its turn ends; the first of these leaves when nobody else is there.
- *Jobs that are deferred* ask for their chunks when they come to be the first of those that wait, and a place and tokens of a step are
  left; and again when HBM has room for them. What is neither in DRAM nor on its way there begins to come up then, as much as DRAM has room
  for. While any of that which HBM lacks is on its way, or is being loaded by another and HBM keeps blocks, others pass the job; then it is
  where it was. What SSD had of it when it first asked for some of that counts as SSD's.
- *Chunks that come up ahead of jobs* are those that only SSD has of a prompt, and DRAM has room for, when its turn comes: of 256 tokens
  or more beyond DRAM's and HBM's, and of a chunk. They come in the order of arrivals, one turn's after the other's, and 128 at a time:
  the next behind what DRAM has by then. A batch begins when the one before has come, when a turn has come that does not start at once, or
  after a step. A job that starts has what has come of them, and no batch begins for it any more; its tokens count as SSD's beyond those
  that DRAM had when it came. One that comes to be the first of those that wait is held back once, until all that can has come, or its
  patience ends, and others pass it. Whether it is the first is asked when any turn comes, and after a step. Then it is where it was.
- *Steps.* A step that prefills and decodes first has its decodes end, then its prompts, in the order in which their jobs got places. Before
  a step, whose KV has come gets a place, unless somebody is to give way; then those that gave way, and then the queue, as long as a place,
  HBM and tokens of a step are left. A prompt's first part waits for all that its job loads, as if it were prefilled whole and alone; of
  several the step waits for the longest.
- *HBM that answers grow into* is theirs for every token that is out, and before the first one for that, too. Who starts leaves a token for
  each that decodes, or where shares are reserved that, and all answers of those that do not decode yet. The share falls with each
  decode step, and is the first one again when a job starts and no other has HBM.
- *Who gives way* is asked when a step is to decode and finds no HBM for a token of each; then jobs may start anew before it. It gives all
  HBM back, and loads again what its store still keeps for it, or finds in blocks. What is told of a turn's start is of its first one; it
  was admitted then, and saving starts then. It counts as waiting.
- *Blocks* have names when a prompt is prefilled, and when a job ends or gives way, of all that is computed by then. An answer that has
  filled its blocks takes a free one more when its next token is out.
- *A tree* gets what was computed when blocks get names; what an answer fills joins it when the job ends or gives way. A node ends where a
  context has ended or parted from it, and has what one step computes at most, whole blocks from where it began. What has been computed
  twice is there once, in use by both. Of nodes that nobody uses nor goes on from that of which the last use ended first goes, and those
  of one job tail before head; a node that is cut has been used as long as the whole.
- *Saving* starts when the job is admitted, or has what it loads asynchronously, and ends a token's transfer after its last step at the
  earliest. The GPU then stalls until the write buffer can hold what is left of all saves.
"""

from collections.abc import Callable

from kvplan.sim.config import ConfigError
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.validate.checks.reference.batching import BATCHINGS
from kvplan.validate.checks.reference.fetching import PATIENCE_S
from kvplan.validate.checks.reference.service import Service

NOT_JUDGED: dict[str, Callable[[RunInput], bool]] = {
    "sessions in HBM": lambda given: not given.deployment.pooled and any(tier.on_device for tier in given.deployment.tiers),
    "tiers other than dram and ssd": lambda given: not set(given.deployment.sizes) <= {"hbm", "dram", "ssd"},
    "schedulers other than fcfs": lambda given: given.config.scheduler != "fcfs",
    "routers other than session, and with blocks least-loaded": lambda given: (
        given.config.router not in ("session", *["least-loaded"] * given.deployment.pooled)
    ),
    "batching other than iteration, chunked and prefill-first": lambda given: given.config.batching not in BATCHINGS,
    "evictions other than lru, fifo and lookahead": lambda given: given.config.store.eviction not in ("lru", "fifo", "lookahead"),
    "prefetching other than none and lookahead, and with blocks HiCache's": lambda given: (
        given.config.store.prefetch not in ("none", "lookahead", *(PATIENCE_S if given.deployment.pooled else ()))
    ),
    "write policies other than back": lambda given: given.config.store.write != "back",
    "load policies other than always": lambda given: given.config.store.load != "always",
    "watchers and observers": lambda given: given.watch is not None or given.observer is not None,
}
"""What the engine does and the reference does not, and whether a run asks for it."""


def run_reference(given: RunInput) -> RunOutput:
    """Replays the workload: an engine. Raises ConfigError that names what it does not know."""
    return served(given).output()


def served(given: RunInput) -> Service:
    """The finished run, with all that happened in it. Raises ConfigError, as `run_reference`."""
    unknown = [what for what, asks in NOT_JUDGED.items() if asks(given)]
    if unknown:
        raise ConfigError(f"the reference does not know {'; '.join(unknown)}: leave that to the engine")
    return Service(given).run()
