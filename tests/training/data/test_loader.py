"""Batches: every clip once an epoch, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

import numpy as np

from dimml_training.data.loader import ClipRows, EpochSampler, batches


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int | None, epoch: int) -> list[int]:
        sampler = EpochSampler(20, 6, seed=seed)
        sampler.set_epoch(epoch)
        return [index for batch in sampler for index in batch]

    assert order(None, 3) == list(range(20))
    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(20))
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_a_last_batch_of_one_is_left_out_of_training_only() -> None:
    assert [len(batch) for batch in EpochSampler(9, 4, seed=0)] == [4, 4]
    assert [len(batch) for batch in EpochSampler(9, 4, seed=None)] == [4, 4, 1]
    assert [len(batch) for batch in EpochSampler(10, 4, seed=0)] == [4, 4, 2]
    for clips, seed in ((9, 0), (9, None), (10, 0)):
        sampler = EpochSampler(clips, 4, seed=seed)
        assert len(sampler) == len(list(sampler))


def test_a_batch_holds_the_rows_of_its_clips() -> None:
    slots = np.array([5, 1, 3, 0])
    clips = ClipRows({"audio": np.arange(12.0, dtype=np.float32).reshape(6, 2)}, slots, np.array([0, 1, 0, 2]))
    loader = batches(clips, 3)
    found = [(rows["audio"].tolist(), labels.tolist()) for rows, labels, *_ in loader]
    assert found == [([[10, 11], [2, 3], [6, 7]], [0, 1, 0]), ([[0, 1]], [2])]
