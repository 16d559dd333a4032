"""A run's configuration and outcome as TensorBoard's HPARAMS and TEXT read them.

The messages are built by hand: the plugin's own writer imports TensorFlow where that is installed.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

_TEXT = ("string_value", "DATA_TYPE_STRING")
_KINDS = (  # a bool is an int too
    (bool, ("bool_value", "DATA_TYPE_BOOL")),
    ((int, float), ("number_value", "DATA_TYPE_FLOAT64")),
)


def configuration(values: Mapping[str, Any], text: str, outcomes: Iterable[str], now: float) -> Any:
    """A Summary of what holds at the start.

    values: by key; what is no bool, number or text is told as text.  text: YAML.
    outcomes: tags of scalars to be shown beside.  now: seconds since 1970.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    infos, start = [], plugin_data_pb2.SessionStartInfo(start_time_secs=now)
    for key, value in values.items():
        field, kind = next((kind for types, kind in _KINDS if isinstance(value, types)), _TEXT)
        infos.append(api_pb2.HParamInfo(name=key, type=api_pb2.DataType.Value(kind)))
        setattr(start.hparams[key], field, str(value) if field == "string_value" else value)
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in outcomes]
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


def _plugin(tag: str, **message: Any) -> Any:
    """A value without a number: all that the plugin reads is its metadata."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**message))
    return Summary.Value(tag=tag, tensor=metadata.NULL_TENSOR, metadata=told)


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.util import tensor_util

    data = SummaryMetadata.PluginData(plugin_name="text")
    words = tensor_util.make_tensor_proto([text.encode()])
    return Summary.Value(tag=tag, tensor=words, metadata=SummaryMetadata(plugin_data=data))
