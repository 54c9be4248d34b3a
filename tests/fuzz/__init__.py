"""A fuzzer: clients of rbd_native and of librbd, in several processes, on the same images of a real cluster.

    python -m tests.fuzz --seed 1 --minutes 5 --features 61 5 13 1 --cached both      # on a cluster of its own
    python -m tests.fuzz --conf ceph.conf --seed 7 --themes burst whole --clients ab
    python -m tests.fuzz --replay found-7-61.json --times 5 --verbose

A seed makes a script (:mod:`plan`): a list of steps, each one or several lanes of calls that run at the same time, each
lane in its process (:mod:`actor`, driven by :mod:`stage`). What the calls answer, and when, is judged by a model in
pure Python: an order of the calls must explain all answers (:mod:`judge`, with the rules in :mod:`rules`), and every
byte that is read must be one that may be there (:mod:`history`, :mod:`effects`). At the end librbd judges what lies on
the disk (:mod:`final`). A script that fails is made shorter by running parts of it (:mod:`shorten`), is printed and
saved. What librbd does wrong among its own kind is told apart, and is no failure.

With `--package-path` another rbd_native is fuzzed: an older one shows what the fuzzer is able to find. At commit
d263a43, by themes (`--themes T --steps 40 --seed 1`), what was wrong there and the first seeds that find it:

    reopen (--clients ab)   a snapshot that is told and not made: 1, 4, 5, 6; two of three scripts
    burst                   snapshots that show what was written after them: 1, 2, 3, 4, 6
    whole                   a snapshot that a shrink or a rollback changes: 1, 3, 6; a rollback that takes the lock: 2, 4, 7
    turned                  a deep copy that turns its handle: every script
    copies (--clients ab)   a copy that becomes a clone of format 1 of what is not protected: 1, 2, 3, 5
    layouts (--clients ab)  a deep copy into another layout that copies coarsely: 3
    locks                   a lock that is released and never taken again by itself: 5
    fence                   who is fenced is told something else, close raises: 2, 4, 8, 9
    same                    of several that flatten all but one fail: 2, 4
    churn                   children are not found while pools go: every second script
    clones                  a snapshot in the trash is told to be removed: 1, 2
    mirror, groups, diffs   a demoted image is renamed, a group of other members is rolled back, snapshot 0: 2, 1, 1
    features (--features 1) fast-diff without a lock: 2, 3, 4
"""
