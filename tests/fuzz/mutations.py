"""Damage of files as disks, networks and programs do it, always the same for one seed."""

import random


def mutate(data: bytes, seed: int, header: int) -> bytes:
    """Return damaged bytes; most damage is in the first ``header`` bytes, where it changes what the rest means."""
    chance, raw = random.Random(seed), bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        end = min(header, len(raw)) if chance.random() < 0.75 else len(raw)
        place = chance.randrange(max(end, 1))
        kind = chance.randrange(8)
        if kind <= 2:
            raw[place] ^= 1 << chance.randrange(8)
        elif kind == 3:
            raw[place] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 4:
            raw[place : place + 4] = chance.choice(
                (b"\0" * 4, b"\xff" * 4, b"\x7f\x80\0\0", b"\0\0\x80\x7f", b"\0\0\xc0\x7f")
            )
        elif kind == 5:
            del raw[place : place + chance.choice((1, 2, 8, 100))]
        elif kind == 6:
            raw[place:place] = chance.randbytes(chance.choice((1, 2, 8, 100)))
        else:
            del raw[chance.randrange(len(raw)) :]
        if not raw:
            break
    return bytes(raw)
