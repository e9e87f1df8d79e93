"""The same story in several processes at once: each with its own server, disk and random numbers out of the test's seed."""
import multiprocessing
import random
import traceback

import processes


def _one(world, number, story, results):
    world.rng = random.Random(f"{world.seed}/{number}")
    world.processes = []
    processes.Disk.count = 1000 * number
    try:
        results.put((number, story(world, number), None))
    except BaseException:  # it is told to the parent, which fails
        results.put((number, None, traceback.format_exc()))
    finally:
        for process in reversed(world.processes):
            if process.poll() is None:
                process.kill()
                process.wait()


def run_side_by_side(world, count, story):
    """Runs story(world, number) for each number; gives what they returned. The first failure fails the test."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_one, args=(world, number, story, results)) for number in range(count)]
    for child in children:
        child.start()
    answers = [results.get() for _ in children]
    for child in children:
        child.join()
    for number, _, failure in sorted(answers, key=lambda answer: answer[0]):
        if failure:
            raise AssertionError(f"in process {number} of {count}:\n{failure}")
    return [answer for _, answer, _ in sorted(answers, key=lambda answer: answer[0])]
