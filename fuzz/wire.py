"""Any frames give a message or RemoteError, nothing else; what was read can be written, and then says the same."""

from __future__ import annotations

import contextlib

from rtc_kernel.errors import RemoteError
from rtc_kernel.wire import DELIMITER, Codec, finite, new_header, split

KEY = b"key"

_HEADER = new_header("execute_request", session="s", username="é")
_FRAMES = {"parent": {"msg_id": "p"}, "idents": [b"i"], "buffers": [b"b"]}
SEEDS = [
    *(b"\0".join(Codec(key).write(_HEADER, {"code": "print('é😀')"}, **_FRAMES)) for key in (b"", KEY)),  # type: ignore[arg-type]
    b"\0".join([DELIMITER, b"", b"{}", b"{}", b'{"a":[1,null,"\\ud800",NaN]}', b'{"x":1e999}']),
    b"\0".join([DELIMITER, b"", b'{"msg_id":1}', b"[]", b"{}", b'{"a":' * 9]),
]


def run(data: bytes) -> None:
    """Read frames, which zero bytes divide, with and without a key."""
    frames = data.split(b"\0")
    with contextlib.suppress(RemoteError):
        split(frames)
    with contextlib.suppress(RemoteError):
        Codec(KEY).read(frames)
    codec = Codec(b"")
    try:
        message = codec.read(frames)
    except RemoteError:
        return
    for word in (message.type, message.id, message.session, message.username, message.parent_id, message.parent_type):
        assert isinstance(word, str)
    again = codec.read(codec.write(message.header, message.content, parent=message.parent, metadata=message.metadata))
    if b"\\u" not in data:  # half a character comes back as an escape
        assert (again.header, again.content) == (finite(message.header), finite(message.content))
