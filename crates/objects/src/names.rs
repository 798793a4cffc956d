//! Names and labels: what may be in them.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
    alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters \
    or '-', start with an alphabetic character, and end with an alphanumeric character";
const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The outcome of a check: the message says what the rule is.
pub type Check = Result<(), String>;

fn alphanumeric_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn shape(text: &str, edge: fn(u8) -> bool, middle: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || middle.contains(b))
}

fn length(text: &str, max: usize) -> Check {
    if text.len() > max {
        return Err(format!("must be no more than {max} bytes"));
    }
    Ok(())
}

fn rule(holds: bool, text: &str) -> Check {
    if holds { Ok(()) } else { Err(text.to_owned()) }
}

/// A DNS-1123 label: `web-1`, at most 63 bytes.
///
/// # Errors
/// The rule, in words.
pub fn dns1123_label(text: &str) -> Check {
    length(text, LABEL_MAX)?;
    rule(shape(text, alphanumeric_lower, b"-"), LABEL_RULE)
}

/// A DNS-1123 subdomain: labels with dots, at most 253 bytes.
///
/// # Errors
/// The rule, in words.
pub fn dns1123_subdomain(text: &str) -> Check {
    length(text, SUBDOMAIN_MAX)?;
    rule(text.split('.').all(|part| shape(part, alphanumeric_lower, b"-")), SUBDOMAIN_RULE)
}

/// A DNS-1035 label (names of Services): as a DNS-1123 label, but begins with a letter.
///
/// # Errors
/// The rule, in words.
pub fn dns1035_label(text: &str) -> Check {
    length(text, LABEL_MAX)?;
    let letter = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    rule(letter && shape(text, alphanumeric_lower, b"-"), DNS1035_RULE)
}

/// A name that may hold what a segment of a URL's path may hold: names of roles.
///
/// # Errors
/// The rule, in words.
pub fn path_segment(text: &str) -> Check {
    if text == "." || text == ".." {
        return Err(format!("may not be '{text}'"));
    }
    for part in ["/", "%"] {
        if text.contains(part) {
            return Err(format!("may not contain '{part}'"));
        }
    }
    Ok(())
}

/// A label key or annotation key: `app`, `example.com/app`.
///
/// # Errors
/// The rule, in words.
pub fn label_key(text: &str) -> Check {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Err("prefix part must be non-empty".into());
        }
        dns1123_subdomain(prefix).map_err(|message| format!("prefix part {message}"))?;
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    length(name, LABEL_MAX).map_err(|message| format!("name part {message}"))?;
    rule(shape(name, |b| b.is_ascii_alphanumeric(), b"-_."), KEY_RULE)
}

/// A label value: at most 63 bytes, may be empty.
///
/// # Errors
/// The rule, in words.
pub fn label_value(text: &str) -> Check {
    length(text, LABEL_MAX)?;
    rule(text.is_empty() || shape(text, |b| b.is_ascii_alphanumeric(), b"-_."), VALUE_RULE)
}

/// A key of a ConfigMap or Secret.
///
/// # Errors
/// The rule, in words.
pub fn config_key(text: &str) -> Check {
    length(text, SUBDOMAIN_MAX)?;
    if text == "." || text == ".." || text.starts_with("..") {
        return Err("must not be '.', nor begin with '..'".into());
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    rule(
        !text.is_empty() && text.bytes().all(fine),
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    )
}

/// A name of an environment variable: anything printable but `=`.
///
/// # Errors
/// The rule, in words.
pub fn env_name(text: &str) -> Check {
    rule(
        !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'='),
        "a valid environment variable name must consist only of printable ASCII characters \
         other than '='",
    )
}

/// A name of a port: at most 15 bytes, with a letter in it.
///
/// # Errors
/// The rule, in words.
pub fn port_name(text: &str) -> Check {
    length(text, 15)?;
    let fine = shape(text, alphanumeric_lower, b"-")
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--");
    rule(
        fine,
        "must contain only alphanumeric characters (a-z, 0-9) and single hyphens between them, \
         and at least one letter",
    )
}
