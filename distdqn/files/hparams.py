"""A run's configuration and outcome as TensorBoard's HPARAMS and TEXT read them.

The messages are built by hand: the plugin's own writer imports TensorFlow where that is installed.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any


def configuration(values: Mapping[str, Any], text: str, outcomes: Iterable[str], now: float) -> Any:
    """A Summary of what holds at the start.

    values: by key; what is no bool, number or text is told as text.  text: YAML.
    outcomes: tags of scalars to be shown beside.  now: seconds since 1970.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2  # type: ignore[import-untyped]

    told = {
        key: x if isinstance(x, bool | int | float | str) else str(x) for key, x in values.items()
    }
    infos = [api_pb2.HParamInfo(name=key, type=_type_of(value)) for key, value in told.items()]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in outcomes]
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=now)
    for key, value in told.items():
        field = (
            "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        )
        setattr(start.hparams[key], f"{field}_value", value)
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics, time_created_secs=now)
    return Summary(
        value=[
            _text("configuration", textwrap.indent(text, "    ")),  # markdown: as it is
            _plugin("_hparams_/experiment", experiment=experiment),
            _plugin("_hparams_/session_start_info", session_start_info=start),
        ]
    )


def end(now: float) -> Any:
    """A Summary that tells that the run has come to its end."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    told = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=now)
    return Summary(value=[_plugin("_hparams_/session_end_info", session_end_info=told)])


def _type_of(value: bool | float | str) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64


def _plugin(tag: str, **message: Any) -> Any:
    """A value without a number: all that the plugin reads is its metadata."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_FLOAT
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = HParamsPluginData(version=0, **message).SerializeToString()
    data = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    nothing = TensorProto(
        dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
    )
    return Summary.Value(tag=tag, tensor=nothing, metadata=SummaryMetadata(plugin_data=data))


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    words = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[text.encode()])
    data = SummaryMetadata.PluginData(plugin_name="text")
    return Summary.Value(tag=tag, tensor=words, metadata=SummaryMetadata(plugin_data=data))
