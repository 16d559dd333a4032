"""Publishing and pulling: nobody gets old weights, nobody is woken for nothing."""

import asyncio

import numpy as np

from distdqn.types import BEFORE_ANY, WeightSnapshot, WeightsVersion
from distdqn.weights.server import WeightServer


def snapshot(counter, value=0.0, target=None, incarnation=1, target_counter=1):
    return WeightSnapshot(
        WeightsVersion(incarnation, counter),
        WeightsVersion(incarnation, target_counter),
        env_steps=counter * 10,
        online=np.full(3, value, np.float32),
        target=None if target is None else np.full(3, target, np.float32),
    )


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def test_who_asks_for_newer_is_answered_by_the_next_publication_and_not_before():
    async def scenario():
        server, events = WeightServer(), []

        async def pull():
            events.append("asks")
            got = await server.newer(BEFORE_ANY, BEFORE_ANY, 5.0)
            events.append(f"gets {got.version.counter}")
            got = await server.newer(got.version, got.target_version, 5.0)
            events.append(f"gets {got.version.counter}")

        pulling = asyncio.ensure_future(pull())
        for counter in (1, 2):
            await asyncio.sleep(0.02)
            events.append(f"publishes {counter}")
            await server.publish(snapshot(counter))
        await pulling
        return events

    assert run(scenario()) == ["asks", "publishes 1", "gets 1", "publishes 2", "gets 2"]


def test_the_newest_is_given_to_who_slept_through_several():
    async def scenario():
        server = WeightServer()
        for counter in (1, 2, 3):
            await server.publish(snapshot(counter, value=counter))
        return await server.newer(WeightsVersion(1, 1), BEFORE_ANY, 1.0)

    got = run(scenario())
    assert got.version == (1, 3)
    assert got.env_steps == 30
    np.testing.assert_array_equal(got.online, [3, 3, 3])


def test_nothing_newer_in_time_is_none():
    async def scenario():
        server = WeightServer()
        await server.publish(snapshot(1))
        return await server.newer(WeightsVersion(1, 1), BEFORE_ANY, 0.02)

    assert run(scenario()) is None


def test_a_dead_learners_late_publication_is_dropped():
    async def scenario():
        server = WeightServer()
        await server.publish(snapshot(1, incarnation=2, value=2))
        await server.publish(snapshot(99, incarnation=1, value=1))
        return await server.newer(BEFORE_ANY, BEFORE_ANY, 1.0)

    assert run(scenario()).version == (2, 1)


def test_the_target_goes_only_to_who_has_an_older_one():
    async def scenario():
        server = WeightServer()
        await server.publish(snapshot(1, target=7.0, target_counter=4))
        await server.publish(snapshot(2, target=None, target_counter=4))
        without = await server.newer(BEFORE_ANY, WeightsVersion(1, 4), 1.0)
        with_target = await server.newer(BEFORE_ANY, WeightsVersion(1, 3), 1.0)
        return without, with_target

    without, with_target = run(scenario())
    assert without.target is None
    np.testing.assert_array_equal(with_target.target, [7, 7, 7])
    assert with_target.version == (1, 2)


def test_the_server_keeps_its_own_copy():
    async def scenario():
        server, online = WeightServer(), np.zeros(3, np.float32)
        await server.publish(WeightSnapshot(WeightsVersion(1, 1), WeightsVersion(1, 1), 0, online))
        online[:] = 9
        return await server.newer(BEFORE_ANY, BEFORE_ANY, 1.0)

    np.testing.assert_array_equal(run(scenario()).online, [0, 0, 0])


def test_a_learners_state_is_kept_for_its_successor():
    async def scenario():
        server = WeightServer()
        empty = await server.load_state()
        await server.save_state({"gradient_steps": 3})
        return empty, await server.load_state()

    assert run(scenario()) == (None, {"gradient_steps": 3})
