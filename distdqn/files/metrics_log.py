"""A run's scalars and distributions: `metrics.jsonl` and TensorBoard events, side by side.

A line has `global_step` (env steps) and `gradient_steps` when it was written and `time` (seconds
since 1970), so that the file ascends in all three.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.files import hparams
from distdqn.plain_json import to_json

_FLUSH_PERIOD_S = 1.0
_BUFFER_BYTES = 1 << 18


class MetricsLog:
    """Both files of one run's folder.

    Buffers up to 256 kB each and hands them over once a second, when something is
    written. TensorBoard's own EventFileWriter is passed by: it has a thread per file and
    imports TensorFlow where that is installed.
    """

    def __init__(self, folder: Path):
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        stem = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        # Both are closed by close().
        self._lines = open(folder / "metrics.jsonl", "ab", buffering=_BUFFER_BYTES)  # noqa: SIM115
        self._events = RecordWriter(open(folder / stem, "wb", _BUFFER_BYTES))  # noqa: SIM115
        self._flush_at = 0.0
        self._add_event(file_version="brain.Event:2")

    def write(
        self,
        scalars: Mapping[str, float],
        env_steps: int,
        gradient_steps: int,
        evaluated: int | None = None,
    ) -> None:
        """One line and one event.

        scalars: by TensorBoard tag; those that are not finite are left out.
        env_steps, gradient_steps: now, `global_step` of the line; never less than before.
        evaluated: env steps of the weights that the scalars are of, where these are older: the
          event's step, and `eval/env_steps` of the line.
        """
        finite = {tag: float(value) for tag, value in scalars.items() if math.isfinite(value)}
        if not finite:
            return
        self.write_events(finite, env_steps if evaluated is None else evaluated)
        clocks = {"global_step": int(env_steps), "gradient_steps": int(gradient_steps)}
        of_weights = {} if evaluated is None else {"eval/env_steps": int(evaluated)}
        line = to_json({**clocks, "time": round(time.time(), 3), **of_weights, **finite})
        self._lines.write(line.encode() + b"\n")
        if time.monotonic() >= self._flush_at:
            self.flush()

    def write_episodes(
        self, episodes: Iterable[tuple[int, float, int]], gradient_steps: int
    ) -> None:
        """Training episodes as (env steps, raw return, length), one by one."""
        for env_steps, value, length in episodes:
            told = {"charts/episodic_return": value, "charts/episodic_length": length}
            self.write(told, env_steps, gradient_steps)

    def write_events(self, scalars: Mapping[str, float], step: int) -> None:
        """One event with finite scalars by tag, for TensorBoard alone."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add_event(step=int(step), summary=Summary(value=values))

    def write_configuration(
        self, values: Mapping[str, Any], text: str, outcomes: Iterable[str]
    ) -> None:
        """The configuration, for TensorBoard's TEXT and HPARAMS.

        values: by dotted key.  text: YAML.
        outcomes: tags of the figures that HPARAMS shows beside the values.
        """
        summary = hparams.configuration(values, text, outcomes, time.time())
        self._add_event(step=0, summary=summary)

    def write_outcome(self, scalars: Mapping[str, float], step: int) -> None:
        """The figures at the end that `write_configuration` has announced, and that it ended."""
        self.write_events(scalars, step)
        self._add_event(step=int(step), summary=hparams.end(time.time()))

    def write_histogram(
        self, tag: str, counts: np.ndarray, edges: np.ndarray, global_step: int
    ) -> None:
        """A distribution for TensorBoard alone; `metrics.jsonl` has its quantiles.

        counts: `[n]` of values between `edges [n + 1]`, ascending and finite.
        """
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        middles = (edges[:-1] + edges[1:]) / 2
        # The left edge of the first bucket is `min`; the others' that of their neighbour.
        histogram = HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=counts @ middles,
            sum_squares=counts @ middles**2,
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        value = Summary.Value(tag=tag, histo=histogram)
        self._add_event(step=int(global_step), summary=Summary(value=[value]))

    def rewind(self, step: int) -> None:
        """TensorBoard drops all earlier events whose step lies above `step`."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]

        self._add_event(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def flush(self) -> None:
        """Hands over what is buffered."""
        self._lines.flush()
        self._events.flush()
        self._flush_at = time.monotonic() + _FLUSH_PERIOD_S

    def close(self) -> None:
        self._lines.close()
        self._events.close()

    def _add_event(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._events.write(Event(wall_time=time.time(), **fields).SerializeToString())


def is_up_to(line: str, env_steps: int) -> bool:
    """Whether a line of `metrics.jsonl` is whole and not after `env_steps`."""
    try:
        return json.loads(line)["global_step"] <= env_steps
    except (ValueError, KeyError, TypeError):  # cut off when its writer was killed
        return False
