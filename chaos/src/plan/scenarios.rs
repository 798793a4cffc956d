//! Plans with a name.

/// Name, what it is good for, and its steps.
pub const SCENARIOS: &[(&str, &str, &str)] = &[
    (
        "kills",
        "SIGKILL of the leader, of a follower, of a majority, of all",
        "- {faults: [{kill: leader}]}\n- {faults: [{kill: follower}]}\n- {faults: [{kill: leader}]}\n\
         - {faults: [{kill: majority}]}\n- {faults: [{kill: all}], hold-ms: 500}\n",
    ),
    (
        "pauses",
        "SIGSTOP of the leader and of followers, for half an election time-out and for several",
        "- {faults: [{pause: leader}], hold-ms: 500}\n- {faults: [{pause: leader}], hold-ms: 3000}\n\
         - {faults: [{pause: follower}], hold-ms: 2000}\n- {faults: [{pause: majority}], hold-ms: \
         2000}\n",
    ),
    (
        "planned",
        "what an operator does: transfers, a rolling restart",
        "- {faults: [transfer]}\n- {faults: [{terminate: m1}]}\n- {faults: [{terminate: m2}]}\n\
         - {faults: [{terminate: m3}]}\n- {faults: [{terminate: leader}]}\n",
    ),
    (
        "rolling",
        "a rolling restart of all masters, then of all agents; with --from-binary an upgrade",
        "- {faults: [{terminate: m1}], hold-ms: 300, rest-ms: 2500}\n\
         - {faults: [{terminate: m2}], hold-ms: 300, rest-ms: 2500}\n\
         - {faults: [{terminate: m3}], hold-ms: 300, rest-ms: 2500}\n\
         - {faults: [{terminate: n1}], hold-ms: 300, rest-ms: 2500}\n\
         - {faults: [{terminate: n2}], hold-ms: 300, rest-ms: 2500}\n\
         - {faults: [transfer], hold-ms: 300, rest-ms: 1500}\n",
    ),
    (
        "partitions",
        "the leader cut off from masters, clients, everybody; one way; bridged; slow and lossy",
        "- {faults: [{cut: {who: leader, from: everybody}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters, direction: in}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: leader, from: masters, direction: out}}], hold-ms: 3000}\n\
         - {faults: [{cut: {who: follower, from: everybody}}], hold-ms: 3000}\n\
         - {faults: [bridge], hold-ms: 4000}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60, loss: 0.1}}], hold-ms: 3000}\n",
    ),
    (
        "deaf",
        "the leader is long cut off from nodes and clients, but not from the other masters",
        "- {faults: [{cut: {who: leader, from: clients, direction: in}}], hold-ms: 7000}\n\
         - {faults: [{cut: {who: leader, from: clients}}], hold-ms: 7000}\n\
         - {faults: [{cut: {who: leader, from: clients}}], hold-ms: 3000}\n",
    ),
    (
        "transfers",
        "leadership goes round, many times; half of them while a pod is made anew, slowly",
        "- {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n\
         - {faults: [transfer], hold-ms: 200, rest-ms: 200}\n\
         - {faults: [{slow: {who: leader, delay-ms: 60}}, delete-pod, transfer], hold-ms: 500}\n",
    ),
    (
        "blackout",
        "all masters at once, three times",
        "- {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{kill: all}], hold-ms: 200, rest-ms: 1000}\n",
    ),
    (
        "nodes",
        "an agent dies, a node dies with its containers, is cut off, is drained; a pod is deleted",
        "- {faults: [kill-agent], hold-ms: 2000}\n- {faults: [kill-node], hold-ms: 6000}\n\
         - {faults: [cut-node], hold-ms: 5000}\n- {faults: [drain], hold-ms: 1000}\n\
         - {faults: [delete-pod], hold-ms: 500}\n",
    ),
    (
        "docker",
        "the Docker daemon of a node is killed, and paused; a node dies with everything; its cable \
         is pulled",
        "- {faults: [{pause-docker: n1}], hold-ms: 6000, rest-ms: 3000}\n\
         - {faults: [{kill-docker: n2}, {kill: leader}], hold-ms: 3000, rest-ms: 3000}\n\
         - {faults: [{kill-docker: n1}], hold-ms: 4000, rest-ms: 3000}\n\
         - {faults: [{pause-docker: node}, kill-agent], hold-ms: 4000, rest-ms: 3000}\n\
         - {faults: [kill-node], hold-ms: 6000, rest-ms: 3000}\n\
         - {faults: [cut-node], hold-ms: 8000, rest-ms: 3000}\n",
    ),
    (
        "clocks",
        "clocks of masters and agents jump, forward and back, with leaders killed in between",
        "- {faults: [{clock: {who: leader, by-seconds: 7200}}], hold-ms: 3000, rest-ms: 1500}\n\
         - {faults: [{clock: {who: leader, by-seconds: -7200}}], hold-ms: 3000, rest-ms: 1500}\n\
         - {faults: [{clock: {who: follower, by-seconds: 86400}}, {kill: leader}], hold-ms: 3000}\n\
         - {faults: [{clock: {who: all, by-seconds: -600}}], hold-ms: 3000, rest-ms: 1500}\n\
         - {faults: [{clock: {who: all, by-seconds: 600}}, transfer], hold-ms: 3000}\n\
         - {faults: [{clock: {who: node, by-seconds: 3600}}], hold-ms: 3000, rest-ms: 1500}\n\
         - {faults: [{clock: {who: node, by-seconds: -3600}}, kill-agent], hold-ms: 2000}\n",
    ),
    (
        "disk",
        "lost and torn writes, failing and slow syncs, failing writes, full disks, flipped bits",
        "- {faults: [{power-cut: {who: all}}], hold-ms: 300, rest-ms: 1000}\n\
         - {faults: [{power-cut: {who: leader, torn: prefix}}], hold-ms: 1200, rest-ms: 1000}\n\
         - {faults: [{power-cut: {who: all, torn: prefix}}], hold-ms: 300, rest-ms: 1000}\n\
         - {faults: [{fail-syncs: leader}], hold-ms: 1500, rest-ms: 1000}\n\
         - {faults: [{fail-syncs: all}], hold-ms: 800, rest-ms: 1000}\n\
         - {faults: [{fail-writes: leader}], hold-ms: 1500, rest-ms: 1000}\n\
         - {faults: [{full-disk: {who: leader}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{full-disk: {who: follower, room-mb: 1}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{slow-disk: {who: leader, delay-ms: 150}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{slow-disk: {who: majority, delay-ms: 60}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{power-cut: {who: all, torn: prefix}}], hold-ms: 300, rest-ms: 1000}\n\
         - {faults: [{flip-bit: follower}], hold-ms: 1500, rest-ms: 1000}\n",
    ),
    (
        "power",
        "the power of all masters fails, three times",
        "- {faults: [{power-cut: {who: all}}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{power-cut: {who: all}}], hold-ms: 200, rest-ms: 1000}\n\
         - {faults: [{power-cut: {who: all, torn: prefix}}], hold-ms: 200, rest-ms: 1000}\n",
    ),
    (
        "torn-zeros",
        "the power of all masters fails, and leaves files with zeros at the end",
        "- {faults: [{power-cut: {who: all, torn: zeros}}], hold-ms: 200, rest-ms: 1500}\n\
         - {faults: [{power-cut: {who: all, torn: zeros}}], hold-ms: 200, rest-ms: 1500}\n\
         - {faults: [{power-cut: {who: all, torn: zeros}}], hold-ms: 200, rest-ms: 1500}\n",
    ),
    (
        "members",
        "masters replaced, a disk wiped, one more and one less, with a leader killed in between",
        "- {faults: [{replace: follower}], hold-ms: 800, rest-ms: 1000}\n\
         - {faults: [{replace: leader}], hold-ms: 800, rest-ms: 1000}\n\
         - {faults: [{wipe: follower}], hold-ms: 1500, rest-ms: 1000}\n\
         - {faults: [{wipe: leader}], hold-ms: 1500, rest-ms: 1000}\n\
         - {faults: [grow, {kill: leader}], hold-ms: 1500, rest-ms: 1000}\n\
         - {faults: [grow, transfer], hold-ms: 1500, rest-ms: 1000}\n",
    ),
    (
        "short",
        "a little of everything, for every build",
        "- {faults: [{kill: leader}], hold-ms: 1200, rest-ms: 800}\n\
         - {faults: [{cut: {who: leader, from: everybody}}], hold-ms: 2500, rest-ms: 1000}\n\
         - {faults: [{pause: leader}], hold-ms: 2000, rest-ms: 800}\n\
         - {faults: [{terminate: leader}], hold-ms: 800, rest-ms: 800}\n\
         - {faults: [{kill: all}], hold-ms: 300, rest-ms: 800}\n",
    ),
];
