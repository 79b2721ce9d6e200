"""What is given to a TF Serving is what TF Serving reads."""

import re

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from paths import ROOT

from sare_tf.serving import server

CONFIGS = ROOT / "configs" / "serving"
FIELD = descriptor_pb2.FieldDescriptorProto
INT64 = ".google.protobuf.Int64Value"
STRING = ".google.protobuf.StringValue"

# The messages that tensorflow-serving-api leaves out, by the numbers of
# session_bundle_config.proto and monitoring_config.proto of tensorflow/serving.
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, INT64),
        ("batch_timeout_micros", 2, INT64),
        ("max_enqueued_batches", 3, INT64),
        ("num_batch_threads", 4, INT64),
        ("thread_pool_name", 5, STRING),
        ("allowed_batch_sizes", 6, [FIELD.TYPE_INT64]),
        ("pad_variable_length_inputs", 7, FIELD.TYPE_BOOL),
    ],
    "PrometheusConfig": [
        ("enable", 1, FIELD.TYPE_BOOL),
        ("path", 2, FIELD.TYPE_STRING),
    ],
    "MonitoringConfig": [
        ("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig"),
    ],
}
# Flags of ModelServer that we use, by main.cc of tensorflow/serving.
FLAGS = {
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
    "enable_model_warmup",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
}


def message(name):
    """A new message of `MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="configs.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            field = described.field.add(name=field_name, number=number)
            repeated = isinstance(kind, list)
            field.label = (
                FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            )
            kind = kind[0] if repeated else kind
            if isinstance(kind, str):
                field.type, field.type_name = FIELD.TYPE_MESSAGE, kind
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
    return message_factory.GetMessageClass(found)()


def parse(name, into):
    return text_format.Parse((CONFIGS / name).read_text("utf-8"), into)


@pytest.fixture
def compose():
    yaml = pytest.importorskip("yaml", reason="reads the compose file")
    text = (CONFIGS / "compose.yaml").read_text("utf-8")
    return yaml.safe_load(text)["services"]["tensorflow-serving"]


def test_models():
    pytest.importorskip(
        "tensorflow_serving", reason="needs pip install 'sare_tf[serving]'"
    )
    from tensorflow_serving.config import model_server_config_pb2

    parsed = parse("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert model.name == server.DEFAULT_MODEL
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2
    assert dict(model.version_labels) == {"stable": 1}


def test_batching():
    parsed = parse("batching.config", message("BatchingParameters"))
    most = parsed.max_batch_size.value
    assert most >= server.Server(address="").images_per_request
    assert parsed.batch_timeout_micros.value == 5000
    assert parsed.max_enqueued_batches.value > 0
    assert parsed.num_batch_threads.value > 0
    # The sizes that the comment proposes are such as the server takes.
    text = (CONFIGS / "batching.config").read_text("utf-8")
    text = text.replace("# allowed_batch_sizes", "allowed_batch_sizes")
    parsed = text_format.Parse(text, message("BatchingParameters"))
    sizes = list(parsed.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == most


def test_monitoring():
    parsed = parse("monitoring.config", message("MonitoringConfig"))
    assert parsed.prometheus_config.enable
    assert parsed.prometheus_config.path == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize("name", ["BatchingParameters", "MonitoringConfig"])
def test_a_field_that_the_server_does_not_know_is_found(name):
    with pytest.raises(text_format.ParseError, match="batch_size"):
        text_format.Parse("batch_size { value: 1 }", message(name))


def test_compose(compose):
    assert compose["image"].startswith("tensorflow/serving:")
    # Only on loopback: the server does not ask who its clients are.
    assert compose["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    # The source may hold colons itself: ${NAME:?message}.
    mounted = {
        target: source
        for source, target, mode in (
            volume.rsplit(":", 2) for volume in compose["volumes"]
        )
        if mode == "ro"
    }
    assert mounted.keys() == {"/models/sare_tf", "/config"}
    assert mounted["/config"] == "."
    text = (CONFIGS / "models.config").read_text("utf-8")
    (base_path,) = re.findall(r'base_path: "(.+)"', text)
    assert base_path in mounted
    words = [word.partition("=") for word in compose["command"]]
    assert {name.removeprefix("--") for name, _, _ in words} == FLAGS
    files = {value for _, _, value in words if value.startswith("/config/")}
    names = {path.removeprefix("/config/") for path in files}
    assert names == {path.name for path in CONFIGS.glob("*.config")}
