"""Processes that leave Ctrl-C to their parent."""

import multiprocessing
import operator
import os
import signal
import time

import pytest

from distdqn.bench.children import Child, without_ctrl_c
from distdqn.errors import RunError


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


def test_a_child_answers_questions_about_what_it_has_made():
    with Child("a list", list, "abc") as child:
        assert child.answer(60) == ["a", "b", "c"]
        child.ask(operator.getitem, 1)
        assert child.answer(60) == "b"
    assert not child.process.is_alive()


def test_what_fails_in_a_child_is_told_in_its_line():
    missing = pytest.raises(RunError, match="a file: FileNotFoundError: .*no/such/file")
    with Child("a file", open, "/no/such/file") as child, missing:
        child.answer(60)
    with Child("a list", list, "abc", keep=True) as child:
        assert child.answer(60) is None
        with pytest.raises(RunError, match="a list: no answer within 0.1 s"):
            child.answer(0.1)
        child.process.kill()
        with pytest.raises(RunError, match="a list: the process died"):
            child.answer(60)
