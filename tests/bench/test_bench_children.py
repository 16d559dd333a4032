"""Processes that leave Ctrl-C to their parent."""

import multiprocessing
import os
import signal
import time

from distdqn.bench.children import without_ctrl_c


def wait_for_word(pipe):
    pipe.send("up")
    pipe.send(pipe.recv())


def test_a_child_outlives_a_ctrl_c_of_the_terminal():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=wait_for_word, args=(theirs,))
    with without_ctrl_c():
        process.start()
    try:
        os.kill(process.pid, signal.SIGINT)  # while it imports
        assert ours.poll(300) and ours.recv() == "up"
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.1)
        ours.send("still here")
        assert ours.poll(300) and ours.recv() == "still here"
    finally:
        process.kill()
        process.join(300)


def test_this_process_gets_its_ctrl_c_afterwards():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with without_ctrl_c():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
