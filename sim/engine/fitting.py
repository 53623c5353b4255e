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
        job = self.passing(turn)
        job.hbm_bytes = self._takes(job)
        if self._windows and job.output > 1:
            job.window_bytes = self._windows(job.known, job.output - 1) // (job.output - 1)
        return job

    def passing(self, turn: int) -> Job:
        """One that takes no time, and no HBM."""
        session = self._session_of[turn]
        history: int = self._context[session]
        prompt: int = self._prompt[turn]
        output: int = self._output[turn]
        is_cut = history + prompt + output > self._window
        if is_cut:
            history, prompt, output = fit(history, prompt, output, self._window, self._ratio)
        known = history + prompt
        return Job(turn, session, history, known, known + output, 0, is_cut)

    def again(self, job: Job) -> Job:
        """One that had to give way, as it would be now."""
        return job

    def _takes(self, job: Job) -> int:
        """Bytes of HBM, beside what HBM's own tier has of its session."""
        size: int = self._bytes(job.context)
        return size if self._in_hbm is None else max(0, size - self._resident(job.session, job.history))

    def _resident(self, session: int, history: int) -> int:
        """Bytes of its history that HBM's own tier holds, and will until the turn has ended."""
        assert self._in_hbm is not None
        cut = self._context[session] - history
        return 0 if cut and self._embedded else self._taken(self._rest(self._in_hbm(session), self._stored(self._begun(cut)), None))
