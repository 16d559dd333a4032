"""Configuration and outcome as TensorBoard's own plugins read them."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from distdqn.config import from_values, to_plain, to_yaml
from distdqn.files.metrics_log import MetricsLog


@pytest.fixture
def written(tmp_path):
    """A folder of runs with one that has been trained."""
    (tmp_path / "run").mkdir()
    config = from_values({"replay.capacity": 5_000, "learner.double": True})
    log = MetricsLog(tmp_path / "run")
    outcomes = ("final/eval_return_mean", "final/env_steps")
    log.write_configuration(to_plain(config), to_yaml(config), outcomes)
    log.write_outcome({"final/eval_return_mean": 487.5, "final/env_steps": 6_000.0}, 6_000)
    log.close()
    return tmp_path


def test_the_configuration_stands_under_text(written):
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(str(written / "run"))
    accumulator.Reload()
    (event,) = accumulator.Tensors("configuration")
    text = event.tensor_proto.string_val[0].decode()
    assert accumulator.PluginTagToContent("text").keys() == {"configuration"}
    assert all(line.startswith("    ") for line in text.splitlines())
    assert "capacity: 5000" in text


def test_the_hparams_tab_has_a_row_with_settings_and_final_figures(written):
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(written))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(written))
    if "limit" not in inspect.signature(provider.list_hyperparameters).parameters:
        pytest.skip("TensorBoard 2.14 lists hyperparameters in another way")
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request_context, experiment_id = RequestContext(), ""
    metadata = context.hparams_metadata(request_context, experiment_id)
    experiment = context.experiment_from_metadata(
        request_context,
        experiment_id,
        True,
        metadata,
        provider.list_hyperparameters(request_context, experiment_ids=[experiment_id], limit=None),
    )
    columns = {info.name: info.type for info in experiment.hparam_infos}
    assert columns["replay.capacity"] == api_pb2.DATA_TYPE_FLOAT64
    assert columns["learner.double"] == api_pb2.DATA_TYPE_BOOL
    assert columns["env.id"] == api_pb2.DATA_TYPE_STRING
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=10)
    request.col_params.add(metric=api_pb2.MetricName(tag="final/eval_return_mean"))
    request.include_metrics = True
    request.allowed_statuses.append(api_pb2.STATUS_SUCCESS)
    found = list_session_groups.Handler(request_context, context, experiment_id, request).run()
    (group,) = found.session_groups
    assert group.hparams["replay.capacity"].number_value == 5_000
    assert group.hparams["learner.double"].bool_value is True
    assert group.hparams["env.id"].string_value == "CartPole-v1"
    values = {metric.name.tag: metric.value for metric in group.metric_values}
    assert values == {"final/eval_return_mean": 487.5, "final/env_steps": 6_000.0}


def test_writing_them_loads_neither_the_plugin_nor_tensorflow(tmp_path):
    code = (
        "import sys, pathlib; from distdqn.files.metrics_log import MetricsLog; "
        "log = MetricsLog(pathlib.Path(sys.argv[1])); "
        "log.write_configuration({'a': 1}, '', ['b']); log.close(); "
        "heavy = {'tensorflow', 'tensorboard.plugins.hparams.summary', "
        "'tensorboard.plugins.hparams.summary_v2', 'tensorboard.program', 'pandas'}; "
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
