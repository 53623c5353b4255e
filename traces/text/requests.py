"""Requests of a log of chats become sessions.

*Requests with all of their history*: a request goes on from the latest one whose messages, answer included, are its longest prefix, and
that none has gone on from; where the log does not know an answer, the next request's messages tell it. Messages are compared by chained
digests: an entry for each request is kept, no text, and the work is linear in what is read. Of requests that are alike only the answer
tells who goes on from which. Where sessions are named only requests of one session are compared, and one whose history was edited goes on
from the latest context of its session that had ended, as far as both have the same messages.

*Increments* hold what a request adds to its session, which an identifier names.

Recorded tokens go before counted ones.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, takewhile

from kvplan.traces.linked import NONE, Linked
from kvplan.traces.text.conversation import Account
from kvplan.traces.text.rows import Counted, Row
from kvplan.traces.text.starts import Starts, with_starts
from kvplan.traces.workload import Workload


class Requests:
    """Requests as they come, linked to those before them; what both ways of reading have in common."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._linked = Linked()
        self._unanswered = bytearray()
        """Per request: its answer is not known."""
        self._without_prompt: list[int] = []
        """Tokens of records that hold no prompt."""
        self._starts = Starts()

    def __len__(self) -> int:
        return len(self._linked)

    def workload(self, **origin) -> Workload:
        """The finished table. Raises TraceError when there are no requests."""
        for tokens in self._without_prompt:
            self._account.leave_out("requests_without_prompt", tokens)
        unknown = [request for request, is_unknown in enumerate(self._unanswered) if is_unknown]
        for request in unknown:
            self._linked.lengthen(request, 1)
        if unknown:
            origin["answers"] = f"not in the file for {len(unknown):,} of {len(self):,} requests, and taken as one token"
        self._linked.left_out += self._account.left_out
        found = self._linked.workload(**self._account.origin(), **origin)
        return with_starts(found, self._starts.beginnings(self._linked.heads()))

    def _add(self, row: Row, prompt: int, output: int, before: int, kept: int) -> int:
        """A request of so many counted tokens, `output` NONE where the answer is not in the file."""
        recorded = row.recorded
        output = recorded.output if recorded.output != NONE else output
        length = recorded.prompt if recorded.prompt != NONE else prompt
        request = self._linked.add(row.number, length, max(output, 0), recorded.sent_s, recorded.ended_s, before, kept, recorded.cached)
        self._unanswered.append(output == NONE)
        return request

    def _answered(self, request: int, tokens: int) -> None:
        """The next request's messages say how long an unknown answer was."""
        self._unanswered[request] = False
        self._linked.lengthen(request, tokens)


class WholeRequests(Requests):
    """Requests that hold all of their history."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._prompts: dict[int, list[int]] = {}
        """Digest of messages -> the requests that have these, the latest last; those that have gone on are taken off when they are met."""
        self._wholes: dict[int, list[int]] = {}
        """The same of their messages with their answer."""
        self._alike: set[int] = set()
        """Digests of the messages of several requests."""
        self._texts = bytearray()
        """Per request: 1 when the text of its answer is known, 2 when that has reasoning in it, else 0."""
        self._forks: set[int] = set()
        self._heads = array("i")
        """Per request: the one that begins its session, −1 after an edit."""
        self._contexts = _Contexts()
        self.linked = 0
        """Requests that begin with the messages of an earlier one."""

    def add(self, row: Row) -> None:
        """One request, no earlier than those before it."""
        messages, answer = _sides(row.messages, row.answer)
        if not messages:
            self._without_prompt.append(_tokens(answer))
            return
        marks = list(accumulate((message.digest for message in messages), _chained, initial=hash(row.session)))[1:]
        before, depth, forks = self._longest(marks)
        kept = NONE if before == NONE else self._kept(before, messages[depth:], whole=before in self._wholes.get(marks[depth - 1], ()))
        sums = list(accumulate(message.kept for message in messages))
        request = self._add(row, max(sums[-1], 1), _tokens(answer) if answer else NONE, before, kept)
        self._texts.append(0 if not answer else 2 if any(message.reasoning for message in answer) else 1)
        self.linked += before != NONE
        self._forks |= {request} if forks else set()
        self._note(request, marks[-1], answer)
        self._heads.append(request if before == NONE else self._heads[before] if kept == NONE else NONE)
        if self._heads[-1] != NONE:
            self._starts.put(self._heads[-1], messages, self._linked.length(request))
        if row.session is not None:
            self._contexts.add(row.session, request, before, marks, sums)

    def workload(self, **origin) -> Workload:
        """The finished table. Raises TraceError when there are no requests."""
        for request, before, kept in self._contexts.edited():
            if self._linked.link(request, before, kept):
                self._forks.discard(request)
        self._linked.left_out["links_of_second_children"] += len(self._forks)
        return super().workload(**origin)

    def _longest(self, marks: list[int]) -> tuple[int, int, bool]:
        """The request to go on from, how many of the messages it has, and whether there is one, but others have gone on from it already."""
        for depth in range(len(marks), 0, -1):
            mark = marks[depth - 1]
            whole = self._wholes.get(mark)
            if whole is not None:
                found = self._latest(whole)
                return found, depth, found == NONE
            prompts = self._prompts.get(mark) if depth < len(marks) else None
            if prompts is not None:
                found = self._latest(prompts)
                if found != NONE and self._texts[found] and mark in self._alike:
                    return NONE, 0, True
                return found, depth, found == NONE
        return NONE, 0, False

    def _latest(self, requests: list[int]) -> int:
        """The latest of these that none has gone on from."""
        while requests and self._linked.has_gone_on(requests[-1]):
            requests.pop()
        return requests[-1] if requests else NONE

    def _kept(self, before: int, more: Sequence[Counted], whole: bool) -> int:
        """Tokens of the context of a request that another goes on from that has `more` messages; NONE: all. They tell an unknown answer."""
        if whole:
            return NONE if self._texts[before] == 1 else self._linked.length(before)
        run = list(takewhile(lambda message: message.is_answer, more))
        if self._texts[before] or not (run or self._unanswered[before]):
            return self._linked.length(before)
        if run and self._unanswered[before]:
            self._answered(before, _tokens(run))
        return NONE

    def _note(self, request: int, mark: int, answer: Sequence[Counted]) -> None:
        """What others may go on from."""
        prompts = self._prompts.setdefault(mark, [])
        if prompts:
            self._alike.add(mark)
        prompts.append(request)
        if answer:
            *_, last = accumulate((message.digest for message in answer), _chained, initial=mark)
            self._wholes.setdefault(last, []).append(request)


class Increments(Requests):
    """Requests that hold what they add to their session."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._tips: dict[str | None, int] = {}

    def add(self, row: Row) -> None:
        """One request, no earlier than those before it."""
        before = self._tips.get(row.session, NONE)
        earlier = list(takewhile(lambda message: message.is_answer, row.messages)) if before != NONE else []
        if earlier and self._unanswered[before]:
            self._answered(before, _tokens(earlier))
        messages, answer = _sides(row.messages[len(earlier) :], row.answer)
        if not messages:
            self._without_prompt.append(_tokens(answer))
            return
        prompt = sum(message.kept for message in messages) + (0 if before == NONE else self._linked.context(before))
        request = self._tips[row.session] = self._add(row, max(prompt, 1), _tokens(answer) if answer else NONE, before, NONE)
        if before == NONE:
            self._starts.put(request, messages, self._linked.length(request))


class _Contexts:
    """The contexts of each session: digests and tokens of those that may be gone on from, or that begin anew."""

    def __init__(self) -> None:
        self._paths: dict[int, tuple[array, array]] = {}
        """Request -> the digests of its messages, and the tokens up to each message."""
        self._tips: dict[str, dict[int, int]] = {}
        """Of each session: the request that begins a context -> its latest."""
        self._heads: dict[int, int] = {}
        """Latest request of a context -> the one that begins it."""

    def add(self, session: str, request: int, before: int, marks: list[int], sums: list[int]) -> None:
        """A request of a session, that goes on from another or begins a context."""
        head = self._heads.pop(before, request)
        if before != NONE and before != head:
            del self._paths[before]
        self._heads[request] = head
        self._tips.setdefault(session, {})[head] = request
        self._paths[request] = array("q", marks), array("q", sums)

    def edited(self) -> Iterator[tuple[int, int, int]]:
        """(request, request before, tokens in common) of contexts that begin with messages of the latest one of their session that had
        ended before."""
        for tips in self._tips.values():
            ends, waiting = [], sorted(tips.values(), reverse=True)
            for head in sorted(tips):
                while waiting and waiting[-1] < head:
                    ends.append(waiting.pop())
                if ends and (kept := self._common(ends[-1], head)):
                    yield head, ends.pop(), kept

    def _common(self, before: int, head: int) -> int:
        (one, _), (other, sums) = self._paths[before], self._paths[head]
        depth = next((depth for depth, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return sums[depth - 1] if depth else 0


def _sides(messages: Sequence[Counted], answer: Sequence[Counted]) -> tuple[Sequence[Counted], Sequence[Counted]]:
    """The messages of the prompt and of the answer. An answer at the end of the messages is the answer, or says it again."""
    last = list(takewhile(lambda message: message.is_answer, reversed(messages)))[::-1]
    if last and (not answer or [message.digest for message in last] == [message.digest for message in answer]):
        return messages[: len(messages) - len(last)], last
    return messages, answer


def _tokens(answer: Iterable[Counted]) -> int:
    return sum(message.kept + message.reasoning for message in answer)


def _chained(before: int, digest: int) -> int:
    """A digest of messages from that of the ones before and the last one's."""
    return hash((before, digest))
