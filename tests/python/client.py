"""The official Python client against a cluster: what scripts and operators do with it.

usage: client.py KUBECONFIG IMAGE      prints one line per step; fails with an exception.
"""

import sys
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

kubeconfig, image = sys.argv[1:]
config.load_kube_config(kubeconfig)
core, apps = client.CoreV1Api(), client.AppsV1Api()
NAMESPACE = "default"


def step(name):
    print(name, flush=True)


def until(what, look, seconds=60):
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def config_maps():
    meta = {"name": "py", "labels": {"by": "python"}}
    created = core.create_namespaced_config_map(NAMESPACE, {"metadata": meta, "data": {"a": "1"}})
    assert created.data == {"a": "1"}, created
    # The client sends a merge without naming its kind, and a list as a JSON patch.
    patched = core.patch_namespaced_config_map("py", NAMESPACE, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}, patched
    patch = [{"op": "remove", "path": "/data/a"}]
    patched = core.patch_namespaced_config_map("py", NAMESPACE, patch)
    assert patched.data == {"b": "2"}, patched
    try:
        core.create_namespaced_config_map(NAMESPACE, {"metadata": meta})
        raise AssertionError("created twice")
    except ApiException as error:
        assert error.status == 409 and "AlreadyExists" in error.body, error
    listed = core.list_namespaced_config_map(NAMESPACE, label_selector="by=python", limit=1)
    assert [one.metadata.name for one in listed.items] == ["py"], listed


def watches():
    seen = []
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="by=python", timeout_seconds=2
    ):
        seen.append((event["type"], event["object"].metadata.name))
    assert seen == [("ADDED", "py")], seen
    core.delete_namespaced_config_map("py", NAMESPACE)


def pods():
    container = {
        "name": "main",
        "image": image,
        "command": ["/bin/sh", "-c", "echo hello; exec httpd -f -p 8080 -h /www"],
    }
    pod = {
        "metadata": {"name": "py", "labels": {"by": "python"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    core.create_namespaced_pod(NAMESPACE, pod)
    until("running", lambda: core.read_namespaced_pod("py", NAMESPACE).status.phase == "Running")
    log = until("a log", lambda: core.read_namespaced_pod_log("py", NAMESPACE))
    assert log == "hello\n", log


def execs():
    command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"]
    session = stream(
        core.connect_get_namespaced_pod_exec, "py", NAMESPACE, command=command,
        stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
    )
    session.write_stdin("word\n")
    session.run_forever(timeout=30)
    out, err = session.read_stdout(), session.read_stderr()
    assert out == "out\ngot word\n" and err == "err\n", (out, err)
    assert session.returncode == 3, session.returncode


def forwards():
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, "py", NAMESPACE, ports="8080")
    sock = forwarded.socket(8080)
    sock.setblocking(True)
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while b"it works" not in answer:
        piece = sock.recv(1024)
        assert piece, (answer, forwarded.error(8080))
        answer += piece


def dynamic_client():
    api = dynamic.DynamicClient(client.ApiClient())
    deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "py"}},
            "template": {
                "metadata": {"labels": {"app": "py"}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    }
    deployments.create(body=body, namespace=NAMESPACE)
    scale = apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 0}})
    assert scale.status.selector == "app=py", scale
    deployments.delete(name="py", namespace=NAMESPACE)


def watches_go_on():
    """A watch from a revision shows what came after it, in order, and ends when it is told to."""
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    for number in range(3):
        meta = {"name": f"py-{number}", "labels": {"by": "watch"}}
        core.create_namespaced_config_map(NAMESPACE, {"metadata": meta})
    core.delete_namespaced_config_map("py-1", NAMESPACE)
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="by=watch",
        resource_version=start, timeout_seconds=30,
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 4:
            watcher.stop()
    want = [("ADDED", f"py-{number}") for number in range(3)] + [("DELETED", "py-1")]
    assert seen == want, seen
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="by=watch")
    # An old revision is too old, which is said, or everything since is shown: never an empty watch.
    seen = []
    try:
        for event in watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version="1", timeout_seconds=2
        ):
            seen.append((event["type"], event["object"].metadata.name))
    except ApiException as error:
        assert error.status == 410, error
    else:
        assert all(event in seen for event in want), seen


def applies():
    def apply(manager, value, **more):
        body = {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"},
            "data": {"key": value},
        }
        return core.patch_namespaced_config_map(
            "applied", NAMESPACE, body, field_manager=manager,
            _content_type="application/apply-patch+yaml", **more,
        )

    assert apply("one", "1").data == {"key": "1"}
    try:
        apply("two", "2")
        raise AssertionError("no conflict")
    except ApiException as error:
        assert error.status == 409 and "conflict with" in error.body, error
    forced = apply("two", "2", force=True)
    assert forced.data == {"key": "2"}, forced
    assert [one.manager for one in forced.metadata.managed_fields or []] == ["two"], forced
    core.delete_namespaced_config_map("applied", NAMESPACE)


def custom_objects():
    names = {"plural": "snakes", "singular": "snake", "kind": "Snake"}
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"length": {"type": "integer"}}}},
    }
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "snakes.python.example.com"},
        "spec": {
            "group": "python.example.com", "scope": "Namespaced", "names": names,
            "versions": [version],
        },
    }
    extensions, custom = client.ApiextensionsV1Api(), client.CustomObjectsApi()
    extensions.create_custom_resource_definition(definition)

    def established():
        found = extensions.read_custom_resource_definition("snakes.python.example.com")
        conditions = found.status.conditions or []
        return any(one.type == "Established" and one.status == "True" for one in conditions)

    until("established", established)
    place = ("python.example.com", "v1", NAMESPACE, "snakes")
    body = {
        "apiVersion": "python.example.com/v1", "kind": "Snake", "metadata": {"name": "kaa"},
        "spec": {"length": 9},
    }
    custom.create_namespaced_custom_object(*place, body)
    patched = custom.patch_namespaced_custom_object(*place, "kaa", {"spec": {"length": 10}})
    assert patched["spec"] == {"length": 10}, patched
    listed = custom.list_namespaced_custom_object(*place)
    assert [one["metadata"]["name"] for one in listed["items"]] == ["kaa"], listed
    snakes = dynamic.DynamicClient(client.ApiClient()).resources.get(
        api_version="python.example.com/v1", kind="Snake"
    )
    assert snakes.get(name="kaa", namespace=NAMESPACE).spec.length == 10
    extensions.delete_custom_resource_definition("snakes.python.example.com")
    until("gone", lambda: not custom_kind_is_there(place))


def custom_kind_is_there(place):
    try:
        client.CustomObjectsApi().list_namespaced_custom_object(*place)
        return True
    except ApiException as error:
        assert error.status == 404, error
        return False


def clean():
    core.delete_namespaced_pod("py", NAMESPACE, grace_period_seconds=0)

    def gone():
        try:
            core.read_namespaced_pod("py", NAMESPACE)
        except ApiException as error:
            return error.status == 404

    until("the pod is gone", gone)


assert client.VersionApi().get_code().major == "1"
steps = [config_maps, watches, watches_go_on, applies, custom_objects]
steps += [pods, execs, forwards, dynamic_client, clean]
for one in steps:
    one()
    step(one.__name__)
