"""Users' own policies run under supervision: what fails, or answers what cannot be, is named with its call and its arguments."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from kvplan.sim.policies.base import ADMISSIONS, NEEDS, Batching, Eviction, Load, Prefetch, Router, Scheduler, View, Write


class PolicyError(ValueError):
    """No such policy, a class that is not one, or one that does not do what a policy must."""


def supervised(kind: str, base: type, name: str, policy: type) -> type:
    """A class like `policy` whose instances raise PolicyError for whatever goes wrong in them. Its `SUPERVISED` is the policy itself.

    Raises PolicyError when what the class declares of itself cannot be.
    """
    settings = {key: getattr(policy, key) for key in _settings(base)}
    _check_settings(kind, name, policy, settings)

    def guard(call: str, function: Callable, arguments: tuple) -> Any:
        try:
            return function(*arguments)
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:
            raise PolicyError(f"{_place(kind, name, call, arguments)} raised {type(error).__name__}: {error}") from error

    def __init__(self, *arguments):  # noqa: N807 - a method of the class that is made below
        self.members: set[int] = set()
        """What a right answer can name: the sessions of the order, those wanted, or the turns that wait."""
        self.shown: int | None = None
        """The head of the queue, as the policy last said."""
        self.places: dict[int, int] = {}
        """Replica of each session, of a router that says that it stays."""
        if base is Eviction:
            arguments = (_Declared(arguments[0], name, settings["NEEDS"]),)
        self.given = arguments[0] if arguments else None
        """The view that the policy was made with, where it has one."""
        self.inner = guard("__init__", policy, arguments)

    def method(call: str):
        audit = _AUDITS.get((base, call))

        def run(self, *arguments):
            answer = _plain(guard(call, getattr(self.inner, call), arguments))
            wrong = audit(self, answer, *arguments) if audit else None
            if wrong:
                raise PolicyError(f"{_place(kind, name, call, arguments)} {wrong}")
            return answer

        return run

    methods = {call: method(call) for call in calls(base) if getattr(policy, call) is not getattr(base, call)}
    return type(policy.__name__, (base,), {"__init__": __init__, "NAME": name, "SUPERVISED": policy, **settings, **methods})


_SWITCHES: dict[str, tuple[type, str]] = {
    "FOLLOWS_KV": (Scheduler, "update"),
    "LEARNS": (Scheduler, "done"),
    "HOLDS": (Prefetch, "patience_s"),
}
"""Setting -> the call that is made only for those that set it."""


def _check_settings(kind: str, name: str, policy: type, settings: dict[str, Any]) -> None:
    needs = settings.get("NEEDS", frozenset())
    lead_s = settings.get("LEAD_S", 0.0)
    if not isinstance(needs, set | frozenset) or not needs <= set(NEEDS):
        raise PolicyError(f"{kind} policy {name!r}: NEEDS is {needs!r}; it is a frozenset of {', '.join(NEEDS)}")
    if not _is_number(lead_s) or not 0 <= lead_s < math.inf:
        raise PolicyError(f"{kind} policy {name!r}: LEAD_S is {lead_s!r}; it is a number of seconds, 0 or more")
    if settings.get("RESERVES", "answer") not in ADMISSIONS:
        raise PolicyError(f"{kind} policy {name!r}: RESERVES is {settings['RESERVES']!r}; it is one of {', '.join(ADMISSIONS)}")
    if settings.get("FIXED") and not settings["STICKY"]:
        raise PolicyError(f"{kind} policy {name!r} sets FIXED and not STICKY: what follows from the session alone stays")
    for setting, (base, call) in _SWITCHES.items():
        if setting not in settings:
            continue
        defines = getattr(policy, call) is not getattr(base, call)
        if settings[setting] and not defines:
            raise PolicyError(f"{kind} policy {name!r} sets {setting} and does not define {call}")
        if defines and not settings[setting] and setting != "FOLLOWS_KV":  # every ranked queue can update, and few need to
            raise PolicyError(f"{kind} policy {name!r} defines {call}, which is called only for those that set {setting} = True")


class _Declared(View):
    """A view that answers only what the policy has declared that it needs."""

    def __init__(self, view: View, name: str, needs: frozenset[str]) -> None:
        self.capacity, self.is_last = view.capacity, view.is_last
        self._view = view
        self._name = name
        self._needs = needs

    def _ask(self, call: str, need: str, session: int) -> Any:
        if need not in self._needs:
            raise PolicyError(f"eviction policy {self._name!r} calls {call} and does not declare {need!r} in NEEDS")
        return getattr(self._view, call)(session)

    def size(self, session: int) -> int:
        return self._view.size(session)

    def now_s(self) -> float:
        return self._view.now_s()

    def position(self, session: int) -> float | None:
        return self._ask("position", "queue", session)

    def recompute_s(self, session: int) -> float:
        return self._ask("recompute_s", "costs", session)

    def load_s(self, session: int) -> float:
        return self._ask("load_s", "costs", session)

    def next_use_s(self, session: int) -> float:
        return self._ask("next_use_s", "future", session)

    def tenant(self, session: int) -> int:
        return self._ask("tenant", "tenant", session)


def calls(base: type) -> list[str]:
    """Names of the methods that a policy of a kind may define."""
    names = {name for each in base.__mro__ for name, member in vars(each).items() if callable(member) and each is not object}
    return sorted(name for name in names if not name.startswith("_")) + ["__len__"] * hasattr(base, "__len__")


def _settings(base: type) -> list[str]:
    """Names of the class attributes that say what a policy needs."""
    return [name for name in vars(base) if name.isupper() and name != "NAME"]


def _place(kind: str, name: str, call: str, arguments: tuple) -> str:
    shown = ", ".join(repr(each) if isinstance(each, int | float | None) else type(each).__name__ for each in arguments)
    return f"{kind} policy {name!r}: {call}({shown})"


def _plain(answer: Any) -> Any:
    """The same with Python's own numbers in the place of NumPy's, which compiled code does not take."""
    if isinstance(answer, np.generic):
        return answer.item()
    return type(answer)(map(_plain, answer)) if type(answer) in (tuple, list) else answer


def _is_number(answer: Any) -> bool:
    return isinstance(answer, Real) and not isinstance(answer, bool)


def _is_member(policy: Any, answer: Any) -> bool:
    return isinstance(answer, Integral) and not isinstance(answer, bool) and answer in policy.members


def _joins(policy: Any, answer: Any, key: int, *_: Any) -> None:
    policy.members.add(key)


def _leaves(policy: Any, answer: Any, key: int, *_: Any) -> None:
    policy.members.discard(key)


def _names_a_member(policy: Any, answer: Any, *_: Any) -> str | None:
    if answer is None or _is_member(policy, answer):
        return None
    return f"answered {answer!r}, which is not among the {len(policy.members)} it can choose from"


def _names_a_victim(policy: Any, answer: Any) -> str | None:
    if answer is None and policy.members and not policy.MAY_REFUSE:
        return f"answered None, with {len(policy.members)} to choose from; a policy that may refuse sets MAY_REFUSE"
    return _names_a_member(policy, answer)


def _names_the_head(policy: Any, answer: Any) -> str | None:
    policy.shown = answer
    if answer is None and policy.members:
        return f"answered None, while {len(policy.members)} wait"
    return _names_a_member(policy, answer)


def _takes_a_place(policy: Any, answer: Any, turn: int) -> str | None:
    policy.members.add(turn)
    if _is_number(answer) and math.isfinite(answer):
        return None
    return f"answered {answer!r}, but a place in the queue is a finite number"


def _gives_up_a_member(policy: Any, answer: Any) -> str | None:
    if not _is_member(policy, answer):
        return f"answered {answer!r}, which does not wait"
    if answer != policy.shown:
        return f"answered {answer!r}, but head() had answered {policy.shown!r}"
    policy.members.discard(answer)
    if len(policy.inner) != len(policy.members):
        return f"left {len(policy.inner)} waiting, but {len(policy.members)} have come and not gone"
    return None


def _is_a_place(policy: Any, answer: Any, index: int) -> str | None:
    waiting = len(policy.members)
    right = (_is_number(answer) and math.isfinite(answer)) if index < waiting else answer is None
    return None if right else f"answered {answer!r} with {waiting} waiting"


def _counts_members(policy: Any, answer: Any) -> str | None:
    return None if answer == len(policy.members) else f"answered {answer!r}, but {len(policy.members)} wait"


def _is_patience(policy: Any, answer: Any, *_: Any) -> str | None:
    return None if _is_number(answer) and answer >= 0 else f"answered {answer!r}, but patience is a number of seconds, 0 or more"


def _is_yes_or_no(policy: Any, answer: Any, *_: Any) -> str | None:
    return None if isinstance(answer, bool) else f"answered {answer!r}, which is neither True nor False"


def _can_be_loaded(policy: Any, answer: Any, job: Any) -> str | None:
    try:
        tokens, compute_s, done_s = answer
        is_count = isinstance(tokens, Integral) and not isinstance(tokens, bool)
        least_s = job.rest_s * (1 - 1e-9)
        right = is_count and 0 <= tokens <= job.cached and not tokens % job.block and least_s <= compute_s <= done_s < math.inf
    except (TypeError, ValueError):
        right = False
    counts = "whole tokens" if job.block == 1 else f"blocks of {job.block} tokens"
    wanted = f"({counts} up to {job.cached}, GPU seconds, no less than the new tokens take, seconds, no less than those)"
    return None if right else f"answered {answer!r}: it must be {wanted}"


def _is_a_step(policy: Any, answer: Any, batch: Any) -> str | None:
    try:
        chunks, decodes = answer
        jobs = [id(job) for job, _ in chunks]
        known = {id(job) for job in batch.prefilling}.issuperset(jobs) and len(set(jobs)) == len(jobs)
        whole = known and all(isinstance(tokens, int) and 1 <= tokens <= job.left for job, tokens in chunks)
        right = whole and isinstance(decodes, bool) and bool(chunks or (decodes and batch.decoding))
    except (TypeError, ValueError):
        right = False
    waiting = ", ".join(f"{job.left} of turn {job.turn}" for job in batch.prefilling) or "nothing"
    wanted = f"(chunks (job, tokens), each job once, and whether {batch.decoding} jobs decode); to prefill are {waiting}"
    return None if right else f"answered {answer!r}: a step is {wanted}, and holds something"


def _is_a_replica(policy: Any, answer: Any, session: int, turn: int) -> str | None:
    replicas = policy.given.replicas
    if not isinstance(answer, Integral) or isinstance(answer, bool) or not 0 <= int(answer) < replicas:
        return f"answered {answer!r}, but replicas are whole numbers from 0 to {replicas - 1}"
    before = policy.places.setdefault(session, answer) if policy.STICKY else answer
    return None if answer == before else f"answered {answer!r}, but the session is on {before!r}, and the policy sets STICKY"


_AUDITS: dict[tuple[type, str], Callable[..., str | None]] = {
    (Eviction, "insert"): _joins,
    (Eviction, "restore"): _joins,
    (Eviction, "remove"): _leaves,
    (Eviction, "set_aside"): _leaves,
    (Eviction, "victim"): _names_a_victim,
    (Prefetch, "want"): _joins,
    (Prefetch, "drop"): _leaves,
    (Prefetch, "next"): _names_a_member,
    (Prefetch, "patience_s"): _is_patience,
    (Scheduler, "push"): _takes_a_place,
    (Scheduler, "update"): _takes_a_place,
    (Scheduler, "head"): _names_the_head,
    (Scheduler, "pop"): _gives_up_a_member,
    (Scheduler, "position_at"): _is_a_place,
    (Scheduler, "__len__"): _counts_members,
    (Write, "copies"): _is_yes_or_no,
    (Write, "demotes"): _is_yes_or_no,
    (Load, "loads"): _can_be_loaded,
    (Batching, "admits"): _is_yes_or_no,
    (Batching, "step"): _is_a_step,
    (Router, "route"): _is_a_replica,
}
