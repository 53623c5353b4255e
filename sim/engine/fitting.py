"""What a turn takes: its tokens after truncation to the window, and its HBM."""

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.batch import Job
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.store.protocol import Store
from kvplan.traces.context import fit


class Fitting:
    """One replica's. `context`: tokens of history per session that are kept."""

    def __init__(
        self, config: Config, deployment: Deployment, recorder: Recorder, session_of: list[int], context: list[int], store: Store
    ) -> None:
        self._prompt, self._output = recorder.prompt_tokens, recorder.output_tokens
        self._session_of, self._context = session_of, context
        self._window: int = deployment.window
        self._ratio: float = config.deployment.truncation_ratio
        self._hbm_kv = deployment.hbm_kv
        self._embedded = config.store.positions == "embedded"
        self._in_hbm = store.tiers[0].held if store.tiers and store.tiers[0].spec.on_device else None
        self._rest, self._begun = deployment.kv.rest, deployment.connection.begun
        self._taken, self._stored = store.tiers[0].spec.taken if store.tiers else int, deployment.stored
        self._windows = deployment.hbm_kv.window_reads if deployment.hbm_kv.is_checkpoint else None

    def job(self, turn: int) -> Job:
        """The job that a waiting turn would be now: room is kept for its answer."""
        session = self._session_of[turn]
        history = self._context[session]
        prompt, output = self._prompt[turn], self._output[turn]
        context = history + prompt + output
        if context > self._window:
            history, prompt, output = fit(history, prompt, output, self._window, self._ratio)
            context = history + prompt + output
        needed = self._hbm_kv.of(context)
        if self._in_hbm is not None:
            needed = max(0, needed - self._resident(session, history))
        job = Job(turn, session, history, prompt, output, needed, context)
        if self._windows and output > 1:
            job.window_bytes = self._windows(history + prompt, output - 1) // (output - 1)
        return job

    def _resident(self, session: int, history: int) -> int:
        """Bytes of its history that HBM's own tier holds, and will until the turn has ended."""
        assert self._in_hbm is not None
        cut = self._context[session] - history
        return 0 if cut and self._embedded else self._taken(self._rest(self._in_hbm[session], self._stored(self._begun(cut)), None))
