"""Which observations are pictures, and which torso suits them.

Apart from the torsos themselves, so that a run can be refused before it starts by a
process that does not load PyTorch.
"""

from distdqn.errors import ConfigError
from distdqn.types import ObservationSpec

KNOWN_TORSOS = "auto, mlp, nature, minatar, or module:function"

# Pixels of a side; the three layers of nature turn 36 into 8, 3 and 1.
SMALLEST = {"nature": 36, "minatar": 3}


def check_torso(torso: str, observation: ObservationSpec) -> None:
    """Raises ConfigError for a `network.torso` that does not exist or cannot see the observations.

    That is: an unknown name, or for nature and minatar no pictures or too small ones.
    """
    if ":" not in torso and torso not in ("auto", "mlp", *SMALLEST):
        raise ConfigError(f"unknown torso {torso!r}: network.torso must be {KNOWN_TORSOS}")
    if torso not in SMALLEST:
        return
    _, height, width = picture_of(observation)
    if min(height, width) < (least := SMALLEST[torso]):
        raise ConfigError(
            f"torso {torso} needs pictures of at least {least}x{least}, got {height}x{width}; "
            "use --network.torso auto, mlp, or module:function"
        )


def suited_torso(observation: ObservationSpec) -> str:
    """What "auto" stands for: "nature", "minatar" or "mlp".

    Pictures are bytes with two or three axes: nature from 36x36, minatar for smaller ones
    of at least 6x6 with channels last. Everything else is an mlp's.
    """
    shape = observation.shape
    if observation.num_categories or observation.dtype != "uint8" or len(shape) not in (2, 3):
        return "mlp"
    pixels = picture_of(observation)[1:]
    if min(pixels) >= SMALLEST["nature"]:
        return "nature"
    is_small_picture = len(shape) == 3 and channels_last(shape) and min(pixels) >= 6
    return "minatar" if is_small_picture else "mlp"


def picture_of(observation: ObservationSpec) -> tuple[int, int, int]:
    """Channels, height and width of an observation as a picture; a stack's frames are channels.

    Of a frame's three axes the channels are the first or the last, whichever is shorter, the last
    if they are equal. Raises ConfigError for a frame with another number of axes, or an index.
    """
    shape, stack = observation.shape, observation.stack
    if observation.num_categories or len(shape) not in (2, 3):
        raise ConfigError(
            f"frames of shape {list(shape)} are no pictures: required [H, W], [H, W, C] or "
            "[C, H, W]; use --network.torso mlp"
        )
    if len(shape) == 2:
        return stack, shape[0], shape[1]
    channels, height, width = shape
    if channels_last(shape):
        height, width, channels = shape
    return stack * channels, height, width


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a frame of three axes has its channels last: they are the fewest."""
    return shape[2] <= shape[0]
