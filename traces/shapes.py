"""What a file is that kvplan does not read as a trace, and what to do with it: for the message that refuses it.

A shape is known by bytes of its start, by the end of its name, or by keys of its first record; the first that fits is told. Adding one is
adding a row.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_LOG = "write one request a line as JSON or CSV, and say what its fields hold: --columns session=…,arrival=…,prompt=…,output=…"
_UNPACK = "unpack it, and give the file or folder that was in it"
_DATASET = "write it as Parquet or JSON Lines: `datasets.load_from_disk(…).to_parquet(…)`"


class Shape(NamedTuple):
    """A kind of file."""

    what: str
    then: str
    """What to do."""
    starts: tuple[bytes, ...] = ()
    """One of these stands at the start, or at the place `at`."""
    at: int = 0
    ends: tuple[str, ...] = ()
    """The name ends with one of these."""
    keys: tuple[frozenset[str], ...] = ()
    """All keys of one of these sets are those of the first record, or are within its values."""

    def fits(self, start: bytes, name: str, keys: Collection[str]) -> bool:
        """Whether a file looks so."""
        return (
            (bool(self.starts) and start[self.at :].startswith(self.starts))
            or (bool(self.ends) and name.endswith(self.ends))
            or any(wanted <= set(keys) for wanted in self.keys)
        )


def _keys(*sets: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in sets)


SHAPES = (
    Shape("an Excel workbook", "save the sheet as CSV, and say what its columns hold with --columns", ends=(".xlsx", ".xls", ".ods")),
    Shape("a NumPy archive", "write it as CSV or Parquet: pandas.DataFrame(…).to_parquet(…)", (b"\x93NUMPY",), ends=(".npy", ".npz")),
    Shape("a zip archive", _UNPACK, (b"PK\x03\x04", b"PK\x05\x06")),
    Shape("a tar archive", _UNPACK, (b"ustar",), 257, (".tar", ".tgz", ".tar.gz", ".tar.zst")),
    Shape("a 7z, xz, bzip2 or RAR archive", _UNPACK, (b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ", b"BZh", b"Rar!")),
    Shape(
        "an SQLite database",
        "export the table that holds the requests: `sqlite3 -header -csv FILE 'select …' > log.csv`, then --columns",
        (b"SQLite format 3\0",),
    ),
    Shape("an Arrow file, as datasets of HuggingFace are saved", _DATASET, (b"ARROW1", b"\xff\xff\xff\xff"), ends=(".arrow",)),
    Shape("an Avro file", _LOG, (b"Obj\x01",)),
    Shape("an ORC file", "write it as Parquet: `pyarrow.orc.read_table(…)`, then `pyarrow.parquet.write_table(…)`", (b"ORC",)),
    Shape("an HDF5 file", "write its table as Parquet: pandas.read_hdf(…).to_parquet(…)", (b"\x89HDF",)),
    Shape("a Python pickle", "write it as JSON Lines or Parquet with the program that made it", (b"\x80\x04", b"\x80\x05", b"\x80\x03")),
    Shape("a PDF", "a trace is a log or a table", (b"%PDF",)),
    Shape(
        "a summary.json of kvplan, a result and no trace",
        "give `kvplan trace describe` the trace that it came of (`provenance` names it)",
        keys=_keys("schema_version provenance", "schema_version ttft_s"),
    ),
    Shape(
        "a table of kvplan's results, and no trace",
        "give the trace that it came of",
        ends=("turns.parquet", "tiers.parquet"),
        keys=_keys("ttft_s queue_s"),
    ),
    Shape(
        "the config.json of a model",
        "a model goes with --set model=FILE",
        keys=_keys("hidden_size num_hidden_layers", "architectures model_type"),
    ),
    Shape("a tokenizer", "it goes with --set workload.tokenizer=FILE", keys=_keys("added_tokens model", "tokenizer_class")),
    Shape(
        "traces of OpenTelemetry (OTLP)",
        f"take the spans of the model's calls out of it (gen_ai.usage.input_tokens, …): {_LOG}",
        keys=_keys("resourceSpans", "resource_spans", "scopeSpans", "traceId spanId", "trace_id span_id", "spans processes"),
    ),
    Shape(
        "an export of Langfuse",
        f"export its generations, one a line: {_LOG}; for example prompt=usage.input,output=usage.output",
        keys=_keys("traceId usageDetails", "traceId promptTokens", "observations latency", "traceId modelParameters"),
    ),
    Shape(
        "a log of LiteLLM",
        "say what its fields hold: --columns session=session_id,arrival=startTime,end=endTime,prompt=prompt_tokens,"
        "output=completion_tokens (they may be within others: usage.prompt_tokens)",
        keys=_keys("startTime endTime call_type", "litellm_call_id", "startTime spend", "call_type response_cost"),
    ),
    Shape(
        "an HTTP archive (HAR)",
        "take the bodies of its chat requests out of it, one a line: jq -c '.log.entries[].request.postData.text | fromjson'",
        ends=(".har",),
        keys=_keys("log entries", "log creator"),
    ),
    Shape(
        "an answer of Prometheus",
        "kvplan trace from-prometheus FILE says what it tells of the workload",
        (b"# HELP", b"# TYPE"),
        keys=_keys("status data resultType", "resultType result"),
    ),
    Shape(
        "a result of a benchmark, without its requests",
        "give the file that the benchmark sent",
        keys=_keys("request_throughput mean_ttft_ms", "mean_ttft_ms mean_tpot_ms", "input_lens output_lens"),
    ),
    Shape(
        "a batch's output of OpenAI, which holds answers only",
        "give the batch's input (`custom_id`, `body`)",
        keys=_keys("custom_id response error"),
    ),
    Shape(
        "an export of ChatGPT",
        'its messages are a tree: write each conversation as {"messages": [{"role", "content"}, …]}',
        keys=_keys("mapping current_node", "title mapping"),
    ),
    Shape(
        "a table with one message a row",
        "gather the messages of each conversation: jq -cs 'group_by(.ID)[] | {id: .[0].ID, messages: map({role, content})}', where ID is"
        " the field that names it",
        keys=_keys("role content conversation_id", "role content session_id", "role content thread_id"),
    ),
    Shape(
        "lists of texts, said in turn (UltraChat)",
        'write the texts as messages: jq -c \'{id, messages: [.data | to_entries[] | {role: (if .key % 2 == 0 then "user" else'
        ' "assistant" end), content: .value}]}\'',
        keys=_keys("id data"),
    ),
    Shape(
        "instructions for training (Alpaca)",
        "say what its fields hold: --columns prompt_text=instruction,output_text=output",
        keys=_keys("instruction output"),
    ),
    Shape(
        "what belongs to a dataset of HuggingFace",
        _DATASET,
        keys=_keys("_data_files _fingerprint", "builder_name features", "citation features"),
    ),
    Shape(
        "a configuration",
        "it goes in place of the preset: kvplan simulate FILE",
        (b"workload:", b"model:"),
        ends=(".yaml", ".yml", ".toml"),
    ),
    Shape(
        "a server's log in plain text",
        "its metrics tell the load (kvplan trace from-prometheus); requests with their lengths, one a line, tell more",
        (b"INFO ", b"DEBUG ", b"WARNING ", b"(APIServer", b"(EngineCore", b"[INFO]"),
    ),
    Shape("a web page", "save the file itself, not the page that shows it", (b"<!DOCTYPE", b"<!doctype", b"<html")),
    Shape("a pointer of Git LFS, not the file", "fetch the file itself: `git lfs pull`", (b"version https://git-lfs",)),
    Shape("a Chrome or Perfetto timeline", "a trace here is a log of requests: give that", keys=_keys("traceEvents")),
)
"""Kinds of files that are no traces, the most telling first."""


def told(path: Path, start: bytes = b"", keys: Collection[str] = ()) -> str:
    """What a file is, in a sentence that ends with what to do; empty when nothing fits. `keys`: of its first record, and within that."""
    found = next((shape for shape in SHAPES if shape.fits(start, path.name.lower(), keys)), None)
    return f"it is {found.what}: {found.then}" if found else ""
