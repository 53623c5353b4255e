"""From records to the Workload: `Turns` for sources that hold sessions, `Requests` for logs of single requests.

Requests of one session are put in a row, by an identifier, by a parent or by their block hashes; what their lengths count, and what each
adds to the one before, is found in `kvplan.traces.records`.

Left out: prefixes that different sessions share (the block hashes are kept for stores that can use them, and what is shared is counted).
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from sys import intern
from typing import Any

import numpy as np

from kvplan.traces.chains import Log, chains, sessions
from kvplan.traces.hashes import ANYWHERE, Scope, apart, within
from kvplan.traces.prefixes import Prefixes, prefixes
from kvplan.traces.reading import Reading
from kvplan.traces.records import REQUESTS, told
from kvplan.traces.source import BadRecord, Source
from kvplan.traces.workload import Blocks, Families, TraceError, Workload

_AS_IT_IS = Reading()


class Turns:
    """Columns of a Workload that grow a turn at a time; turns of one session come together or not, in order of time."""

    def __init__(self) -> None:
        self._session, self._record = array("i"), array("i")
        self._prompt, self._output = array("i"), array("i")
        self._dropped = array("q")
        self._arrival, self._gap = array("d"), array("d")
        self._block_count, self._block_ids = array("i"), array("q")

    @classmethod
    def of(cls, **columns) -> "Turns":
        """A table of columns that are whole: `session`, `record`, `prompt`, `output`, `dropped`, `arrival`, `gap`, `block_count` and
        `block_ids`, arrays of the types below."""
        table = cls()
        vars(table).update({f"_{name}": values for name, values in columns.items()})
        return table

    def __len__(self) -> int:
        return len(self._session)

    def add(
        self,
        session: int,
        prompt: int,
        output: int,
        record: int = 0,
        arrival_s: float = np.nan,
        gap_s: float = np.nan,
        dropped: int = 0,
        blocks: Sequence[int] = (),
    ) -> None:
        """One turn. Tokens and seconds as in Workload; sessions are numbered 0, 1, 2, … by first appearance."""
        self._session.append(session)
        self._record.append(record)
        self._prompt.append(prompt)
        self._output.append(output)
        self._arrival.append(arrival_s)
        self._gap.append(gap_s)
        self._dropped.append(dropped)
        self._block_count.append(len(blocks))
        self._block_ids.extend(blocks)

    def forget_times(self) -> None:
        """Nothing is known of when turns arrive."""
        self._arrival = array("d", [np.nan]) * len(self)

    def workload(
        self,
        hash_tokens: int | None = None,
        tenants: Sequence[str] | None = None,
        left_out: Mapping[str, int] | None = None,
        **origin,
    ) -> Workload:
        """The finished table; a block hash stands for `hash_tokens`. Arrivals of all turns and no think times make an open loop. `left_out`
        counts, by what they are, parts of the source that are not in it. Raises TraceError when there are no turns."""
        if not len(self):
            raise TraceError("no turns: no record holds a prompt with an answer")
        session = np.frombuffer(self._session, np.int32)
        order = None if np.all(np.diff(session) >= 0) else np.argsort(session, kind="stable")

        def column(values: array, dtype) -> np.ndarray:
            whole = np.array(values, dtype)
            return whole if order is None else whole[order]

        arrival, gap = column(self._arrival, np.float64), column(self._gap, np.float64)
        arrival -= np.nanmin(arrival) if not np.all(np.isnan(arrival)) else 0.0
        sorted_session, dropped = column(self._session, np.int32), column(self._dropped, np.int64)
        return Workload(
            session=sorted_session,
            prompt_tokens=column(self._prompt, np.int32),
            output_tokens=column(self._output, np.int32),
            arrival_s=arrival,
            gap_s=gap,
            open_loop=bool(np.all(np.isfinite(arrival)) and not np.isfinite(gap[1:][sorted_session[1:] == sorted_session[:-1]]).any()),
            dropped_tokens=dropped if dropped.any() else None,
            tenant=None if tenants is None else np.array(tenants, object),
            blocks=None if hash_tokens is None else self._blocks(hash_tokens, order),
            record=column(self._record, np.int32),
            origin=origin | ({"left_out": counts} if (counts := {name: int(n) for name, n in (left_out or {}).items() if n}) else {}),
        )

    def _blocks(self, block_tokens: int, order: np.ndarray | None) -> Blocks:
        counts, ids = np.array(self._block_count, np.int64), np.array(self._block_ids, np.int64)
        if order is not None:
            counts, ids = _reordered(counts, ids, order)
        return Blocks(block_tokens, np.append(0, np.cumsum(counts)), ids)


def _reordered(counts: np.ndarray, ids: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists of these lengths that lie end to end in `ids`, in another order: their lengths, and their ids."""
    starts, counts = (np.cumsum(counts) - counts)[order], counts[order]
    ends = np.cumsum(counts)
    return counts, ids[np.arange(len(ids)) + np.repeat(starts - (ends - counts), counts)]


class _Lists:
    """Lists of whole numbers, end to end in one array: an object for each would take a hundred bytes."""

    def __init__(self) -> None:
        self.ids, self._ends = array("q"), array("q", [0])

    @classmethod
    def of(cls, lengths: np.ndarray, ids: np.ndarray) -> "_Lists":
        """Lists of these lengths that lie end to end in `ids`."""
        lists = cls()
        lists.ids, lists._ends = array("q", ids.tobytes()), array("q", np.append(0, np.cumsum(lengths)).astype(np.int64).tobytes())
        return lists

    def append(self, numbers: Sequence[int]) -> None:
        """One more list."""
        self.ids.extend(numbers)
        self._ends.append(len(self.ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> array:
        return self.ids[self._ends[place] : self._ends[place + 1]]

    def lengths(self) -> np.ndarray:
        """int64: of every list."""
        return np.diff(self._ends)


class Requests:
    """Requests of a log, in its order, and the sessions that they are put into."""

    def __init__(self, block_tokens: int | None = None, source: Source | None = None) -> None:
        self.block_tokens = block_tokens
        """Tokens of a block; None: the log has no block hashes."""
        self._source = source
        self._order: dict[str, str] = {}
        """For an origin: that the requests were not in order of time."""
        self._session = array("i")
        self._record, self._input, self._output = array("i"), array("i"), array("i")
        self._arrival, self._gap = array("d"), array("d")
        self._blocks = _Lists()
        self._tip = array("i")
        self._tenant: list[str] = []
        self._tree: Prefixes | None = None
        self._scope, self._scopes = array("i"), {ANYWHERE: 0}
        self._root, self._offset = array("i"), array("d")

    def __len__(self) -> int:
        return len(self._record)

    def add(
        self,
        record: int,
        input_tokens: int,
        output_tokens: int,
        arrival_s: float = np.nan,
        gap_s: float = np.nan,
        blocks: Sequence[int] = (),
        session: int | None = None,
        tenant: str = "",
        scope: Scope = ANYWHERE,
        root: int | None = None,
        offset_s: float = 0.0,
    ) -> int:
        """One request; its number. `session` continues that one, None begins another: one that comes by itself, or `offset_s` after
        `root`. What its block hashes hold within is its `scope`. Raises BadRecord when it is out of order in time."""
        number = len(self)
        if session is not None:
            tip = self._tip[session]
            before, elsewhere = self._arrival[tip], self._source is not None and self._record[tip] <= self._source.starts[-1][1]
            if arrival_s < before and not elsewhere:
                late = f"{before - arrival_s:,.3g} s"
                raise BadRecord(f"turns out of order, sort the file by time: arrives {late} before", self._record[tip])
        self._record.append(record)
        self._input.append(input_tokens)
        self._output.append(output_tokens)
        self._arrival.append(arrival_s)
        self._gap.append(gap_s)
        self._blocks.append(within(blocks, scope.blocks))
        self._scope.append(0 if scope is ANYWHERE else self._scopes.setdefault(scope, len(self._scopes)))
        if session is None:
            session = len(self._tip)
            self._tip.append(number)
            self._tenant.append(intern(tenant))
            self._root.append(session if root is None else root)
            self._offset.append(0.0 if root is None else offset_s)
        self._tip[session] = number
        self._session.append(session)
        return number

    def session_of(self, number: int) -> int:
        """The session of a request."""
        return self._session[number]

    def is_tip(self, number: int) -> bool:
        """Whether a request is the latest of its session."""
        return self._tip[self._session[number]] == number

    def chain_by_prefix(self) -> dict[str, Any]:
        """Makes sessions out of block hashes, as `kvplan.traces.chains` says. Returns what the origin shall say of them."""
        self._sort()
        owners = [scope.sessions for scope in self._scopes]
        known = Log(self._input, self._output, self._arrival, [owners[number] for number in self._scope])
        before, links = chains(self._prefixes(), known)
        found = sessions(before)
        self._session = array("i", found.tolist())
        self._tip = array("i", dict(zip(self._session, range(len(self)), strict=True)).values())
        self._tenant = [""] * len(self._tip)
        self._root = array("i", range(len(self._tip)))
        return {
            "sessions_from": "block hashes: a request goes on from the one whose full blocks it holds, when no stranger holds them",
            "links": {"requests": len(self), **links},
        }

    def _prefixes(self) -> Prefixes:
        """The full blocks of all requests, once all are there."""
        if self._tree is None:
            counts = self._blocks.lengths()
            full = np.minimum(counts, np.asarray(self._input) // (self.block_tokens or 1))
            self._tree = prefixes(np.asarray(self._blocks.ids), np.cumsum(counts) - counts, full)
        return self._tree

    def _shared_by_sessions(self, opening: np.ndarray) -> float:
        """Tokens at the start of these requests, which open sessions, that an earlier request has, as a share of all prompt tokens."""
        return int(self._prefixes().matched[opening].sum()) * (self.block_tokens or 0) / max(int(np.sum(self._input, dtype=np.int64)), 1)

    def _sort(self) -> None:
        """Puts the requests in order of time, where all times are known: files of several servers overlap, some are newest first."""
        arrival = np.asarray(self._arrival)
        if np.isnan(arrival).any() or np.all(np.diff(arrival) >= 0):
            return
        order = np.argsort(arrival, kind="stable")
        for name in ("_session", "_record", "_input", "_output", "_arrival", "_gap", "_scope"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, np.asarray(column)[order].tobytes()))
        self._blocks = _Lists.of(*_reordered(self._blocks.lengths(), np.asarray(self._blocks.ids), order))
        several = self._source is not None and len(self._source.files) > 1
        self._order = {"files": "overlap in time, and their requests are in one order, that of time"} if several else {"order": "of time"}

    def workload(
        self,
        reading: Reading = _AS_IT_IS,
        own: str = REQUESTS,
        defined: bool = True,
        left_out: Mapping[str, int] | None = None,
        **origin: Any,
    ) -> Workload:
        """The finished table; `own` and `defined` say what the lengths count by the format, see `kvplan.traces.records.told`. Raises
        TraceError when there are no requests."""
        self._sort()
        origin |= self._order
        order = np.argsort(self._session, kind="stable")
        session = np.asarray(self._session)[order]
        first = np.diff(session, prepend=-1) != 0
        turns = Turns.of(
            session=session,
            record=np.asarray(self._record)[order],
            prompt=np.asarray(self._input)[order],
            output=np.asarray(self._output)[order],
            dropped=np.broadcast_to(0, len(order)),
            arrival=np.asarray(self._arrival)[order],
            gap=np.where(first, 0.0, np.asarray(self._gap)[order]),
            **self._blocks_in(order),
        )
        raw = turns.workload(self.block_tokens, self._tenant if any(self._tenant) else None, left_out, **origin)
        root = np.asarray(self._root)
        if np.any(root != np.arange(len(root))):
            raw = replace(raw, families=Families(root, np.asarray(self._offset)))
        found = told(raw, reading, own, defined)
        if found.blocks is None:
            return found
        used, shared = set(self._scope), {"shared_by_sessions": self._shared_by_sessions(order[first])}
        separated = apart(scope for scope, number in self._scopes.items() if number in used)
        return replace(found, origin={**found.origin, **separated, **shared})

    def _blocks_in(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of block hashes, in this order of the requests; none when the log has no hashes."""
        if self.block_tokens is None:
            return {}
        return dict(zip(("block_count", "block_ids"), _reordered(self._blocks.lengths(), np.asarray(self._blocks.ids), order), strict=True))
