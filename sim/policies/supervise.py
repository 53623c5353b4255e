"""Users' own policies run under supervision: what fails, or answers what cannot be, is named with its call and its arguments."""

import math
from collections.abc import Callable
from typing import Any

from sim.policies.base import Eviction, Load, Prefetch, Scheduler


class PolicyError(ValueError):
    """No such policy, a class that is not one, or one that does not do what a policy must."""


def supervised(kind: str, base: type, name: str, policy: type) -> type:
    """A class like `policy` whose instances raise PolicyError for whatever goes wrong in them. Its `SUPERVISED` is the policy itself."""

    def guard(call: str, function: Callable, arguments: tuple) -> Any:
        try:
            return function(*arguments)
        except PolicyError:
            raise
        except Exception as error:
            raise PolicyError(f"{_place(kind, name, call, arguments)} raised {type(error).__name__}: {error}") from error

    def __init__(self, *arguments):
        self._members: set[int] = set()
        """What a right answer can name: the sessions of the order, those wanted, or the turns that wait."""
        self._inner = guard("__init__", policy, arguments)

    def method(call: str):
        audit = _AUDITS.get((base, call))

        def run(self, *arguments):
            answer = guard(call, getattr(self._inner, call), arguments)
            wrong = audit(self._members, answer, *arguments) if audit else None
            if wrong:
                raise PolicyError(f"{_place(kind, name, call, arguments)} {wrong}")
            return answer

        return run

    overridden = [call for call in _calls(base) if getattr(policy, call) is not getattr(base, call)]
    settings = {key: getattr(policy, key) for key in _settings(base)}
    methods = {call: method(call) for call in overridden}
    return type(policy.__name__, (base,), {"__init__": __init__, "NAME": name, "SUPERVISED": policy, **settings, **methods})


def _calls(base: type) -> list[str]:
    """Names of the methods that a policy of a kind may define."""
    names = {name for each in base.__mro__ for name, member in vars(each).items() if callable(member) and each is not object}
    return sorted(name for name in names if not name.startswith("_")) + ["__len__"] * hasattr(base, "__len__")


def _settings(base: type) -> list[str]:
    """Names of the class attributes that say what a policy needs."""
    return [name for name in vars(base) if name.isupper() and name != "NAME"]


def _place(kind: str, name: str, call: str, arguments: tuple) -> str:
    shown = ", ".join(repr(each) if isinstance(each, int | float | None) else type(each).__name__ for each in arguments)
    return f"{kind} policy {name!r}: {call}({shown})"


def _joins(members: set[int], answer: Any, key: int, *_: Any) -> None:
    members.add(key)


def _leaves(members: set[int], answer: Any, key: int, *_: Any) -> None:
    members.discard(key)


def _names_a_member(members: set[int], answer: Any, *_: Any) -> str | None:
    if answer is None or answer in members:
        return None
    return f"answered {answer!r}, which is not among the {len(members)} it can choose from"


def _takes_a_place(members: set[int], answer: Any, turn: int) -> str | None:
    members.add(turn)
    if isinstance(answer, int | float) and math.isfinite(answer):
        return None
    return f"answered {answer!r}, but a place in the queue is a finite number"


def _gives_up_a_member(members: set[int], answer: Any) -> str | None:
    wrong = f"answered {answer!r}, which does not wait" if answer not in members else None
    members.discard(answer)
    return wrong


def _can_be_loaded(members: set[int], answer: Any, job: Any) -> str | None:
    try:
        tokens, compute_s, done_s = answer
        right = 0 <= tokens <= job.cached and 0 <= compute_s <= done_s < math.inf
    except (TypeError, ValueError):
        right = False
    return None if right else f"answered {answer!r}: it must be (tokens up to {job.cached}, GPU seconds, seconds that are no less)"


_AUDITS = {
    (Eviction, "insert"): _joins,
    (Eviction, "restore"): _joins,
    (Eviction, "remove"): _leaves,
    (Eviction, "set_aside"): _leaves,
    (Eviction, "victim"): _names_a_member,
    (Prefetch, "want"): _joins,
    (Prefetch, "drop"): _leaves,
    (Prefetch, "next"): _names_a_member,
    (Scheduler, "push"): _takes_a_place,
    (Scheduler, "update"): _takes_a_place,
    (Scheduler, "head"): _names_a_member,
    (Scheduler, "pop"): _gives_up_a_member,
    (Load, "loads"): _can_be_loaded,
}
