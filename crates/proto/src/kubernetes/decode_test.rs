#![allow(clippy::unwrap_used, clippy::expect_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DecodeError, decode};

/// What kubectl 1.37 sent for each command, and what the same command prints as JSON.
const BODIES: &str = include_str!("kubectl_bodies.json");

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn int(number: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value as u64, &mut out);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

fn pod(spec: &[u8]) -> Vec<u8> {
    body("v1", "Pod", &bytes(2, spec))
}

#[test]
fn kubectls_bodies_are_what_it_prints_as_json() {
    let cases: Vec<Value> = serde_json::from_str(BODIES).unwrap();
    assert!(cases.len() > 20);
    let mut different = Vec::new();
    for case in cases {
        let body = STANDARD.decode(case["body"].as_str().unwrap()).unwrap();
        let decoded = decode(&body).unwrap();
        if decoded != case["json"] {
            different.push(format!("{}:\n{decoded}\n{}", case["command"], case["json"]));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn inlined_fields_are_their_parents() {
    // Volume { name, volumeSource { configMap { localObjectReference { name }, optional } } }
    let reference = bytes(1, &bytes(1, b"settings"));
    let config_map = [reference, int(4, 0)].concat();
    let volume = [bytes(1, b"v"), bytes(2, &bytes(19, &config_map))].concat();
    let decoded = decode(&pod(&bytes(1, &volume))).unwrap();
    let want = json!([{"name": "v", "configMap": {"name": "settings", "optional": false}}]);
    assert_eq!(decoded["spec"]["volumes"], want);
}

#[test]
fn zero_is_kept_behind_pointers_only() {
    // Container { name, ports [{ hostPort 0, containerPort 80 }],
    //             livenessProbe { httpGet { port 0 }, timeoutSeconds 0 }, tty false }
    let port = [int(2, 0), int(3, 80)].concat();
    let http = bytes(2, &bytes(2, &[int(1, 0), int(2, 0)].concat()));
    let probe = [bytes(1, &http), int(3, 0)].concat();
    let container = [bytes(1, b"c"), bytes(6, &port), bytes(10, &probe), int(18, 0)].concat();
    // terminationGracePeriodSeconds is a pointer.
    let spec = [bytes(2, &container), int(4, 0), bytes(3, b"")].concat();
    let decoded = decode(&pod(&spec)).unwrap();
    let want = json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "c", "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 0}},
        }],
    });
    assert_eq!(decoded["spec"], want);
}

#[test]
fn times_fields_and_numbers() {
    let time = [int(1, 1_767_225_600), int(2, 5_000)].concat();
    let fields = [bytes(1, b"kubectl"), bytes(7, &bytes(1, br#"{"f:spec":{}}"#))].concat();
    // creationTimestamp, deletionGracePeriodSeconds, an empty deletionTimestamp, managedFields
    let meta = [bytes(8, &time), int(10, -1), bytes(9, b""), bytes(17, &fields)].concat();
    let decoded = decode(&body("v1", "Pod", &bytes(1, &meta))).unwrap();
    let want = json!({
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": -1,
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
    });
    assert_eq!(decoded["metadata"], want);
    let lease = bytes(2, &bytes(4, &time));
    let decoded = decode(&body("coordination.k8s.io/v1", "Lease", &lease)).unwrap();
    assert_eq!(decoded["spec"]["renewTime"], "2026-01-01T00:00:00.000005Z");
    // Negative and packed numbers.
    let context = bytes(14, &[int(2, -5), bytes(4, &[1, 2])].concat());
    let decoded = decode(&pod(&context)).unwrap();
    assert_eq!(
        decoded["spec"]["securityContext"],
        json!({"runAsUser": -5, "supplementalGroups": [1, 2]})
    );
}

#[test]
fn options_of_deletions_belong_to_every_group() {
    let raw = [int(1, 0), bytes(4, b"Foreground")].concat();
    for version in ["v1", "apps/v1", "meta.k8s.io/v1"] {
        let decoded = decode(&body(version, "DeleteOptions", &raw)).unwrap();
        assert_eq!(decoded["gracePeriodSeconds"], 0);
        assert_eq!(decoded["propagationPolicy"], "Foreground");
    }
}

#[test]
fn errors_say_where() {
    assert_eq!(decode(b"{}"), Err(DecodeError::Magic));
    let text = decode(&body("v1", "Teapot", b"")).unwrap_err().to_string();
    assert!(text.starts_with("no protobuf decoding for kind \"Teapot\""), "{text}");
    let container = [bytes(1, b"c"), bytes(2, &[0xff, 0xfe])].concat();
    let spec = [bytes(2, &bytes(1, b"a")), bytes(2, &container)].concat();
    let whole = pod(&spec);
    let error = decode(&whole).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("(field spec.containers[1].image): a text is not"), "{text}");
    let DecodeError::Broken { offset, .. } = error else { panic!("{error:?}") };
    assert_eq!(whole[offset..], [0xff, 0xfe]);
    // A length that is too long, deep inside.
    let cut = &whole[..whole.len() - 1];
    assert!(matches!(decode(cut), Err(DecodeError::Broken { .. })));
    let wrong = body("v1", "Pod", &int(2, 7));
    let text = decode(&wrong).unwrap_err().to_string();
    assert!(text.contains("(field spec): a varint does not belong here"), "{text}");
    let fields = bytes(17, &bytes(7, &bytes(1, b"{")));
    let text = decode(&body("v1", "Pod", &bytes(1, &fields))).unwrap_err().to_string();
    assert!(text.contains("metadata.managedFields[0].fieldsV1): the raw value is no"), "{text}");
}

#[test]
fn unknown_fields_are_passed_over() {
    let spec = [bytes(2, &bytes(1, b"a")), bytes(4000, b"future"), int(4001, 1)].concat();
    let decoded = decode(&pod(&spec)).unwrap();
    assert_eq!(decoded["spec"], json!({"containers": [{"name": "a"}]}));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// Whatever comes, the answer is JSON or an error.
    #[test]
    fn never_panics_on_noise(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (version, kind) in [
            ("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Secret"), ("v1", "PersistentVolume"),
            ("networking.k8s.io/v1", "Ingress"), ("meta.k8s.io/v1", "Status"),
        ] {
            let _ = decode(&body(version, kind, &noise));
        }
        let _ = decode(&[b"k8s\0", noise.as_slice()].concat());
    }

    /// Broken bodies of kubectl: one byte changed, or the end cut off.
    #[test]
    fn never_panics_on_damage(case in 0_usize..23, at in any::<prop::sample::Index>(), byte: u8) {
        let cases: Vec<Value> = serde_json::from_str(BODIES).unwrap();
        let mut body = STANDARD.decode(cases[case]["body"].as_str().unwrap()).unwrap();
        let at = at.index(body.len());
        let _ = decode(&body[..at]);
        body[at] = byte;
        let _ = decode(&body);
    }
}
