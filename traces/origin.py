"""What the origin of a workload means to somebody who reads a result, in sentences."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from kvplan.traces import clock

_REDRAWN_SHARE = 0.05
"""From here on sessions that were drawn anew show in the means."""
_DOUBTFUL_SHARE = 0.05
"""From here on links between requests that may be chance show in what is made of them."""
_SHARED_SHARE = 0.05
"""From here on what sessions share shows in what a cache hits."""


SHARED = "shared_by_sessions"
"""What a store of whole sessions leaves out, and one of blocks reuses."""


def warnings(origin: Mapping[str, object], but: Collection[str] = ()) -> list[str]:
    """What makes figures less certain than they look, or leaves something out; `but` keys that do not matter to what is made of them."""
    return _sentences({key: said for key, said in origin.items() if key not in but}, _WARNINGS)


def notes(origin: Mapping[str, object]) -> list[str]:
    """How the turns came to be: what was drawn, found or taken for something else; and the warnings."""
    return _sentences(origin, _NOTES) + warnings(origin)


def _sentences(origin: Mapping[str, object], words: Mapping[str, Callable[[Any], str]]) -> list[str]:
    said = [sentence(origin[key]) for key, sentence in words.items() if origin.get(key)]
    return [text for text in said if text]


def _tokens(label: object) -> str:
    return "" if "estimated" in str(label) else f"token counts are {label}"


def _estimate(label: object) -> str:
    return "" if _tokens(label) else f"token counts are {label}; workload.tokenizer names a tokenizer, which counts exactly"


def _redrawn(share: object) -> str:
    if not isinstance(share, float) or share < _REDRAWN_SHARE:
        return ""
    return (
        f"{share:.0%} of the sessions drawn passed workload.max_turns or workload.max_tokens and were drawn anew:"
        " turns and lengths are below what their distributions say"
    )


def _left_out(counts: Mapping[str, int]) -> str:
    return "left out of the trace: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


def _media(what: Any) -> str:
    """What pictures and attachments cost; of an attachment nobody knows it."""
    if not isinstance(what, Mapping):  # of tables that differ in it
        return f"pictures and attachments: {what}"
    counts = " and ".join(f"{what[name]:,} {name}" for name in ("pictures", "attachments") if what.get(name))
    doubt = ": what sounds, videos and files hold is not known" if what.get("attachments") else ""
    return f"{counts} are counted as {what['tokens_each']:,} tokens each (workload.picture_tokens){doubt}"


def _assumed_answers(what: Mapping[str, int]) -> str:
    return f"{what['answers']:,} answers have no length in the trace: {what['tokens_each']:,} tokens are assumed (workload.answer_tokens)"


def _prefilled_again(what: Mapping[str, Any]) -> str:
    return f"the KV of answers is not reused ({what['why']}): {what['tokens']:,} tokens of answers are prefilled again"


_SHOWN = 8


def _tokens_left_out(counts: Mapping[str, int]) -> str:
    names = [f"{tokens:,} of {name}" for name, tokens in list(counts.items())[:_SHOWN]]
    more = sum(list(counts.values())[_SHOWN:])
    return "tokens of text left out of the trace: " + ", ".join(names + ([f"{more:,} of others"] if more else []))


def _recorded(sums: object) -> str:
    names = ("requests", "prompt_tokens", "cached_tokens", "history_tokens")
    if not isinstance(sums, Mapping) or not all(type(sums.get(name)) is int for name in names) or sums["prompt_tokens"] < 1:
        return ""
    cached, held = (sums[name] / sums["prompt_tokens"] for name in ("cached_tokens", "history_tokens"))
    return (
        f"of the prompt tokens of {sums['requests']:,} requests the log records {cached:.1%} as cached; a store that forgets no session"
        f" would hold {held:.1%} (what sessions share with each other is in the first only)"
    )


def _named_counts(counts: object) -> str:
    if not isinstance(counts, Mapping):
        return str(counts)
    return ", ".join(f"{name} ({count} values)" for name, count in counts.items())


def _listed(units: object) -> str:
    if not isinstance(units, Mapping):
        return str(units)
    return ", ".join(f"{name} in {unit}" for name, unit in units.items())


def _links(counts: object) -> str:
    links, requests, one, unanswered = _numbers(counts, "links", "requests", "on_one_block", "without_room_for_the_answer")
    rest = f"; {one:,} of these links rest on one block that no other session has" if one else ""
    edited = f"; in {unanswered:,} there is no room for the answer (reasoning that was dropped, an edit)" if unanswered else ""
    return f"{links:,} of {requests:,} requests go on from an earlier one{rest}{edited}"


def _doubtful_links(counts: object) -> str:
    links, chance, refused, short = _numbers(counts, "links", "by_chance", "not_believed", "shorter_than_a_block")
    doubts = []
    if chance > _DOUBTFUL_SHARE * links:
        doubts.append(f"about {chance:,} of the {links:,} links between requests may be chance: so many are found backwards in time")
    if refused:
        doubts.append(
            f"{refused:,} requests hold all blocks of an earlier one, but about as many would backwards in time:"
            " they are taken for sessions of their own"
        )
    if short:
        doubts.append(f"{short:,} requests are shorter than a block: nothing shows what they go on from, or what goes on from them")
    return "; ".join(doubts)


def _numbers(counts: object, *names: str) -> list[int]:
    """Numbers by name, 0 where there is none: what a table says of its origin may be anything."""
    found = [counts.get(name) if isinstance(counts, Mapping) else 0 for name in names]
    return [value if isinstance(value, int) else 0 for value in found]


def _shared(share: object) -> str:
    if not isinstance(share, float) or share < _SHARED_SHARE:
        return ""
    return f"{share:.0%} of all prompt tokens begin a session like an earlier one of another: a store of sessions cannot reuse them"


def _texts(said: Any, what: str) -> str:
    if not isinstance(said, Mapping):  # of tables that differ in it
        return f"sessions begin with texts of {what}: {said}"
    return f"sessions begin with the text of one of {said['count']:,} {what}, {said['mean_tokens']:,.0f} tokens in the mean"


def _pieces(counts: Any) -> str:
    names = ("records", "conversations", "joined", "beginnings_missing")
    if not isinstance(counts, Mapping) or not all(type(counts.get(name)) is int for name in names):  # of tables that differ in it
        return f"ids look like pieces of conversations: {counts}"
    records, whole, joined, missing = (f"{counts[name]:,}" for name in names)
    lacking = f", and {missing} sessions lack what came before them" if counts["beginnings_missing"] else ""
    return f"ids look like {records} pieces of {whole} conversations; {joined} were joined to another one{lacking}"


_NOTES: Mapping[str, Callable[[Any], str]] = {
    "drawn": lambda what: f"not in the source, and drawn as the configuration says (workload.arrival, workload.think_time): {what}",
    "clients": lambda who: f"turns are sent by a load test's client ({who}; workload.clients): times of the source are not used",
    "drawn_by": lambda what: f"lengths and turns are drawn by {what} (seed)",
    "think_times": lambda what: f"think times are {what}",
    "answers": lambda what: f"answers are {what}",
    "tokens": _tokens,
    "reasoning_tokens": lambda count: f"{count:,} tokens of answers are reasoning, which is not kept in the history (workload.reasoning)",
    "prefilled_again": _prefilled_again,
    "media": _media,
    "sessions_from": lambda what: f"sessions are found by {what}",
    "block_tokens": lambda what: f"blocks of hashes are of {what}",
    "order": lambda what: f"requests are put in order {what}; the file has another",
    "times": lambda what: f"times: {what}",
    "files": lambda what: f"the files {what}",
    "subagents": lambda count: (
        f"{count:,} sessions are started by others, as subagents; each begins as long after its root as was recorded"
    ),
    "unanswered": lambda count: f"{count:,} turns have an answer of 0 tokens: their prompts are prefilled, and nothing is decoded",
    "begin_alike": lambda count: f"{count:,} sessions begin with messages that another has too",
    "applications": lambda said: _texts(said, "applications"),
    "documents": lambda said: _texts(said, "documents"),
    "forks": lambda count: f"{count:,} sessions go on from the history of an earlier one (workload.forks)",
    "tenants_apart": lambda count: f"{count:,} tenants share no prefixes (workload.tenants_apart)",
    "requests": lambda what: f"requests are {what}",
    "columns": lambda what: f"columns are read as {what}",
    "time_units": lambda units: f"times are not in seconds: {_listed(units)}",
    "records": lambda what: f"records are taken as {what}",
    "pieces": _pieces,
    "recorded_cache": _recorded,
    "links": _links,
    "blocks_apart_by": lambda what: f"block hashes are kept apart by {_named_counts(what)}",
    "sessions_apart_by": lambda what: f"sessions are kept apart by {_named_counts(what)}",
}
_WARNINGS: Mapping[str, Callable[[Any], str]] = {
    "doubtful_records": lambda why: f"it is doubtful what a record is: {why} (workload.records: conversations, requests or increments)",
    "texts_apart": lambda count: (
        f"{count:,} prompts are one text each, and none begins with all lines of an earlier one: if they hold a history, it is not seen;"
        " give each record its messages, or only what is new and a session_id"
    ),
    "doubtful_times": lambda why: f"the times may be in another unit: {why} ({clock.WAY_OUT})",
    "tokens": _estimate,
    "doubtful_vocabulary": lambda why: f"the vocabulary may be another: {why}",
    "redrawn_share": _redrawn,
    "assumed_answers": _assumed_answers,
    "left_out": _left_out,
    "tokens_left_out": _tokens_left_out,
    "links": _doubtful_links,
    SHARED: _shared,
    "first_bad_record": lambda place: f"the first bad record: {place}",
}
