"""The queue: order, bounds, waits that end, and places that come free."""

from __future__ import annotations

import asyncio

import pytest

from dimml.errors import DeadlineExceededError, QueueFullError
from dimml_server.prediction.admission import Admission


async def hold(admission: Admission, release: asyncio.Event, order: list[int], name: int = 0) -> None:
    with await admission.permit(10.0):
        order.append(name)
        await release.wait()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_permits_go_first_come_first_served_and_the_bound_holds() -> None:
    async def scenario() -> None:
        admission, order = Admission(concurrency=2, queue_length=3, queue_wait_s=10.0), []
        releases = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(hold(admission, release, order, i)) for i, release in enumerate(releases)]
        await turns()
        assert (admission.running, admission.waiting, order) == (2, 3, [0, 1])
        with pytest.raises(QueueFullError) as full, await admission.permit(10.0):
            pytest.fail("the queue was full")
        assert full.value.retry_after_s >= 1.0
        for release in releases:
            release.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert (admission.running, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_wait_past_the_queues_limit_is_refused_and_one_past_the_requests_is_late() -> None:
    async def scenario() -> None:
        admission, release = Admission(concurrency=1, queue_length=9, queue_wait_s=0.05), asyncio.Event()
        holder = asyncio.create_task(hold(admission, release, []))
        await turns()
        with pytest.raises(QueueFullError, match=r"0\.05 s"), await admission.permit(10.0):
            pytest.fail("no permit was free")
        with pytest.raises(DeadlineExceededError), await admission.permit(0.01):
            pytest.fail("no permit was free")
        assert admission.waiting == 0
        release.set()
        await holder
        assert admission.running == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("simultaneous", [False, True], ids=["while_waiting", "as_the_permit_arrives"])
def test_a_waiter_that_goes_away_frees_its_place(simultaneous: bool) -> None:
    async def scenario() -> None:
        admission, release, order = Admission(concurrency=1, queue_length=9, queue_wait_s=10.0), asyncio.Event(), []
        holder = asyncio.create_task(hold(admission, release, order, 0))
        await turns()
        leaver = asyncio.create_task(hold(admission, asyncio.Event(), order, 1))
        stayer = asyncio.create_task(hold(admission, release, order, 2))
        await turns()
        if simultaneous:
            # The holder ends and hands its permit to the leaver, whose cancellation comes in the same turn.
            release.set()
            holder.cancel()
        leaver.cancel()
        await turns()
        release.set()
        await asyncio.gather(holder, stayer, leaver, return_exceptions=True)
        assert order == [0, 2]
        assert (admission.running, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_a_permit_handed_to_a_cancelled_waiter_passes_on() -> None:
    async def scenario() -> None:
        admission, release, order = Admission(concurrency=1, queue_length=9, queue_wait_s=10.0), asyncio.Event(), []
        holder = asyncio.create_task(hold(admission, release, order, 0))
        leaver = asyncio.create_task(hold(admission, asyncio.Event(), order, 1))
        stayer = asyncio.create_task(hold(admission, release, order, 2))
        await turns()
        release.set()
        await asyncio.sleep(0)  # The holder runs to its end and grants the permit; the leaver has not run yet.
        leaver.cancel()
        await asyncio.gather(holder, stayer, leaver, return_exceptions=True)
        assert 2 in order
        assert (admission.running, admission.waiting) == (0, 0)

    asyncio.run(scenario())
