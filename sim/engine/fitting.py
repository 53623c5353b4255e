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
        self._bytes = deployment.hbm_kv.of
        self._embedded = config.store.positions == "embedded"
        self._in_hbm = store.tiers[0].held if store.tiers and store.tiers[0].spec.on_device else None
        self._rest, self._begun = deployment.kv.rest, deployment.connection.begun
        self._taken, self._stored = store.tiers[0].spec.taken if store.tiers else int, deployment.stored
        self._windows = deployment.attended.window_reads if deployment.attended.is_checkpoint else None

    def job(self, turn: int) -> Job:
        """The job that a waiting turn would be now: room is kept for its answer."""
        session = self._session_of[turn]
        history: int = self._context[session]
        output: int = self._output[turn]
        known: int = history + self._prompt[turn]
        is_cut = known + output > self._window
        if is_cut:
            history, prompt, output = fit(history, self._prompt[turn], output, self._window, self._ratio)
            known = history + prompt
        context = known + output
        job = Job(turn, session, history, known, context, self._bytes(context), is_cut)
        if self._in_hbm is not None:
            job.hbm_bytes = max(0, job.hbm_bytes - self._resident(session, history))
        if self._windows and output > 1:
            job.window_bytes = self._windows(known, output - 1) // (output - 1)
        return job

    def passing(self, turn: int) -> Job:
        """A turn that takes no time."""
        return Fitting.job(self, turn)

    def again(self, job: Job) -> Job:
        """One that had to give way, as it would be now."""
        return job

    def _resident(self, session: int, history: int) -> int:
        """Bytes of its history that HBM's own tier holds, and will until the turn has ended."""
        assert self._in_hbm is not None
        cut = self._context[session] - history
        return 0 if cut and self._embedded else self._taken(self._rest(self._in_hbm(session), self._stored(self._begun(cut)), None))
