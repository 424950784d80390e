"""The flight recorder: the inputs of a hub in a bounded ring, their file, and their replay.

    inputs.py          the inputs of a hub that are recorded
    recorded_hub.py    a hub that notes its inputs and effects in a ring
    ring.py            the last inputs, in segments that begin with a snapshot
    plain.py           objects of the core as plain data, and back
    snapshot.py        the state of a hub as plain data, and back
    redaction.py       what a recording does not hold: secrets and payloads
    compare.py         effects as digests
    recording.py       a recording, made of a part of a ring
    file_format.py     a recording as bytes, and back
    replay.py          the steps of a recording, done again
    causes.py          why something ended

Everything here is pure. `engine/` feeds the ring and writes files.
"""
