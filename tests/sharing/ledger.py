"""What a client that wrote blocks, and died, may have left of them."""

from tests.sharing.worker import BLOCK, RECORD, block_of

ZEROES = bytes(BLOCK)


class Ledger:
    """For each block the numbers of the writes that it may hold, 0 for zeros. Taken from a hammer's records."""

    def __init__(self, seed: int, blocks: int, granule: int) -> None:
        self.seed = seed
        self.blocks = blocks
        self.granule = granule
        self.acknowledged = 0
        self.next = 1
        self._possible: list[set[int]] = [{0} for _ in range(blocks)]

    def take(self, records: bytes) -> None:
        """Everything that a client did, up to its end, however that came."""
        whole = len(records) - len(records) % RECORD.size
        for number, block, done, discard in RECORD.iter_unpack(records[:whole]):
            self.next = max(self.next, number + 1)
            last = min(block + self.granule, self.blocks) if discard else block + 1
            for place in range(block, last):
                if done:
                    self._possible[place] = {0 if discard else number}
                else:
                    self._possible[place].add(0 if discard else number)
            self.acknowledged += done

    def check(self, content: bytes) -> None:
        """Every block is one that it may be; from now on it must stay that one."""
        for block, possible in enumerate(self._possible):
            found = content[block * BLOCK : (block + 1) * BLOCK]
            matching = {number for number in possible if found == (block_of(self.seed, number) if number else ZEROES)}
            assert matching, f"block {block} may be of {sorted(possible)}, but begins with {found[:16].hex()}"
            self._possible[block] = matching
