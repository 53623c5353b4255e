"""Tables: large ones in little memory."""

import tracemalloc

from kvplan import traces

_ROWS = 20_000
_BYTES_A_ROW = 320
"""In the peak of reading: 5.3 million rows are 1 GB. Objects for each row take twice as many."""


def test_reading_a_log_takes_columns_and_no_objects_for_each_row(tmp_path):
    path = tmp_path / "burst.csv"
    rows = (f"{2 * row},{row // 3 if row % 2 else ''},3.5,M,{300 + row % 50},100,{400 + row % 50},API log\n" for row in range(_ROWS))
    path.write_text("Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(rows))
    traces.known_formats()
    tracemalloc.start()
    try:
        table = traces.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.turns == _ROWS and peak < _BYTES_A_ROW * _ROWS
