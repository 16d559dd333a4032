"""What a block, or a saved state, must be before a replay takes it in.

Both come from other processes; whatever could make a later sample wrong, or reach
beyond the block's own frames, is refused here and nowhere later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distdqn.replay.layout import COLUMNS
from distdqn.replay.saved_state import FramePiece
from distdqn.types import ObservationSpec, TransitionBlock


def check_block(block: TransitionBlock, observation: ObservationSpec, num_actions: int) -> None:
    """Raises ValueError if a later sample could be wrong because of the block."""
    num_frames, num_new = len(block.frames), block.num_transitions
    shapes: dict[str, tuple[int, ...]] = {"frames": (num_frames, *observation.shape)}
    shapes |= dict.fromkeys((*COLUMNS, "priorities"), (num_new,))
    shapes["action_mask"] = (num_frames, num_actions)
    for name, shape in shapes.items():
        array = getattr(block, name)
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name} of a block must have shape {shape}, got {array.shape}: the block of "
                f"worker {block.worker} is refused"
            )
    if block.frames.dtype != np.dtype(observation.dtype):
        raise ValueError(
            f"frames of a block must be {observation.dtype}, got {block.frames.dtype}: a cast "
            "could change the observations"
        )
    bounds = {"tm1": num_frames, "t": num_frames, "a_tm1": num_actions}
    bounds |= {"tm1_depth": observation.stack, "t_depth": observation.stack}
    if observation.num_categories:
        bounds["frames"] = observation.num_categories
    for name, bound in bounds.items():
        array = getattr(block, name)
        least = 0 if array.dtype.kind == "u" or not num_new else array.min()
        if num_new and not (least >= 0 and array.max() < bound):
            worst = least if least < 0 else array.max()
            raise ValueError(
                f"{name} of a block must be in [0, {bound}), got {worst}: it would point at "
                "another block's frame, or at no action or observation"
            )
    if observation.stack > 1:
        _check_stacks(block)


def _check_stacks(block: TransitionBlock) -> None:
    for name in ("tm1", "t"):
        positions, depths = getattr(block, name), getattr(block, f"{name}_depth")
        if np.any(depths > positions):
            at = int(np.argmax(depths > positions))
            raise ValueError(
                f"{name}_depth of a block must be at most {name}, got {depths[at]} at position "
                f"{positions[at]}: the stack would begin in another block"
            )


def check_state(
    items: Mapping[str, np.ndarray],
    frames: Sequence[FramePiece],
    observation: ObservationSpec,
) -> None:
    """Raises ValueError if a state was saved with other observations.

    items: columns by name.  frames: in pieces; of compressed ones the first of each piece
      is looked into.
    """
    for piece, _ in frames:
        if not isinstance(piece, np.ndarray):
            from distdqn.replay.compressed_rows import decompressed

            decompressed(piece[:1], observation.dtype, observation.shape)
        elif piece.shape[1:] != observation.shape:
            raise ValueError(
                f"frames of the state must have shape {observation.shape}, got {piece.shape[1:]}: "
                "they are of another environment or preprocessing"
            )
    for name in ("tm1_depth", "t_depth"):
        deepest = int(items[name].max(initial=0))
        if deepest >= observation.stack:
            raise ValueError(
                f"{name} of the state must be below the stack of {observation.stack}, got "
                f"{deepest}: more frames were stacked when it was saved"
            )
