from __future__ import annotations

import hpack
import pytest

from konnectivity.errors import ConnectionFault
from konnectivity.wire import blocks, grpc
from konnectivity.wire.blocks import BlockDecoder

LIMIT = 1 << 16
HEAD = grpc.request_headers(grpc.PROXY, authority="localhost", metadata=[("user-agent", "test")])


@pytest.fixture(autouse=True)
def _forget() -> None:
    blocks._known.clear()


def encoded(*heads: list[tuple[str, str]]) -> list[bytes]:
    """The blocks that one connection's encoder makes of these heads."""
    encoder = hpack.Encoder()
    return [encoder.encode(head) for head in heads]


def test_the_constant_head_is_what_the_library_reads_as_a_grpc_response() -> None:
    fields = hpack.Decoder().decode(blocks.GRPC_RESPONSE)
    assert [tuple(map(str, field)) for field in fields] == grpc.response_headers()


def test_a_first_block_is_remembered_and_read_alike() -> None:
    (block,) = encoded(HEAD)
    heads = [BlockDecoder(max_list=LIMIT).decode(block) for _ in range(3)]
    assert heads == [HEAD] * 3
    assert heads[1] is not heads[2]


def test_a_second_block_may_refer_to_a_remembered_first_one() -> None:
    first, second = encoded(HEAD, [*HEAD, ("more", "1")])
    assert len(second) < len(first)
    for _ in range(2):
        decoder = BlockDecoder(max_list=LIMIT)
        assert decoder.decode(first) == HEAD
        assert decoder.decode(second) == [*HEAD, ("more", "1")]
        assert decoder.decode(second) != []


def test_secrets_and_long_blocks_are_not_remembered() -> None:
    for extra in (("authorization", "Bearer x"), ("x", "y" * 300)):
        (block,) = encoded([*HEAD, extra])
        assert BlockDecoder(max_list=LIMIT).decode(block) == [*HEAD, extra]
    assert not blocks._known


def test_what_is_remembered_is_bounded() -> None:
    for number in range(blocks.REMEMBERED + 10):
        (block,) = encoded([*HEAD, ("n", str(number))])
        BlockDecoder(max_list=LIMIT).decode(block)
    assert len(blocks._known) == blocks.REMEMBERED
    assert (block, LIMIT) in blocks._known  # agents that came before cannot keep a frontend out


def test_a_head_within_one_limit_is_judged_anew_under_another() -> None:
    (block,) = encoded(HEAD)
    BlockDecoder(max_list=LIMIT).decode(block)
    with pytest.raises(ConnectionFault, match="too long"):
        BlockDecoder(max_list=50).decode(block)
