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


def clean():
    core.delete_namespaced_pod("py", NAMESPACE, grace_period_seconds=0)

    def gone():
        try:
            core.read_namespaced_pod("py", NAMESPACE)
        except ApiException as error:
            return error.status == 404

    until("the pod is gone", gone)


assert client.VersionApi().get_code().major == "1"
for one in (config_maps, watches, pods, execs, forwards, dynamic_client, clean):
    one()
    step(one.__name__)
