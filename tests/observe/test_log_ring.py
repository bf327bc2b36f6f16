"""The last records are kept, within bounds of number and size."""

import logging
from collections.abc import Iterator

import pytest

from konnectivity.observe import log_ring
from konnectivity.observe.log_ring import Ring


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring()
    logger = logging.getLogger("konnectivity.ring")
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    logger.setLevel(logging.NOTSET)


def write(message: str, **values: object) -> None:
    logging.getLogger("konnectivity.ring").warning(message, extra={"values": values})


def test_the_newest_records_are_kept_in_order(ring: Ring) -> None:
    for number in range(log_ring.MAX_ENTRIES + 5):
        write("tick", number=number)
    numbers = [entry.values["number"] for entry in ring.entries]
    assert numbers == list(range(5, log_ring.MAX_ENTRIES + 5))


def test_the_ring_is_bounded_in_bytes_too(ring: Ring) -> None:
    for number in range(log_ring.MAX_ENTRIES):
        write("long", number=number, text="x" * 1500)
    assert sum(entry.size for entry in ring.entries) <= log_ring.MAX_BYTES
    assert 400 < len(ring.entries) < log_ring.MAX_ENTRIES
    assert ring.entries[-1].values["number"] == log_ring.MAX_ENTRIES - 1


def test_a_long_text_loses_its_end_and_a_trace_its_beginning(ring: Ring) -> None:
    write("m" * 9000, short="s", text="t" * 9000, items=["i" * 100] * 90, few=[1, 2])
    try:
        {}["v" * 9000]
    except KeyError:
        logging.getLogger("konnectivity.ring").exception("broken")
    first, second = ring.entries
    assert first.message == "m" * log_ring.MAX_TEXT
    assert first.values["text"] == "t" * log_ring.MAX_TEXT
    assert str(first.values["items"]).startswith("['iii")
    assert (first.values["short"], first.values["few"]) == ("s", [1, 2])
    assert len(second.trace) == log_ring.MAX_TEXT
    assert second.trace.endswith("v'")
    assert all(entry.size < 5 * log_ring.MAX_TEXT for entry in ring.entries)


def test_a_record_keeps_no_object_alive(ring: Ring) -> None:
    class Peer:
        def __str__(self) -> str:
            return "10.0.0.7:1"

    write("Agent connected", peer=Peer(), cause=OSError("gone"), raw=b"ab\xff")
    (entry,) = ring.entries
    assert entry.values == {"peer": "10.0.0.7:1", "cause": "gone", "raw": r"ab\udcff"}
