//! How users name objects: `pods`, `pods,svc`, `deploy/web`, `pod a b`, `all`.

use quorate_objects::{Kind, kinds};
use serde_json::Value;

use crate::error::{CliError, Result};

/// A kind, and one of its objects or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The kind.
    pub kind: &'static Kind,
    /// `None`: all that the selector leaves.
    pub name: Option<&'a str>,
}

/// Parses the arguments of verbs that take objects.
///
/// # Errors
/// When a kind is unknown, or types and names are mixed.
pub fn parse(args: &[String]) -> Result<Vec<Target<'_>>> {
    let Some(first) = args.first() else {
        return Err(CliError::local(
            "you must specify the type of resource to work on, such as \"pods\" or \"deploy/NAME\"",
        ));
    };
    if args.iter().any(|arg| arg.contains('/')) {
        return args.iter().map(|arg| slashed(arg)).collect();
    }
    let mut types = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        let found = expand(word)?;
        types.extend(found.into_iter().filter(|kind| !types.contains(kind)).collect::<Vec<_>>());
    }
    if args.len() == 1 {
        return Ok(types.into_iter().map(|kind| Target { kind, name: None }).collect());
    }
    let named = |kind| args[1..].iter().map(move |name| Target { kind, name: Some(name.as_str()) });
    Ok(types.into_iter().flat_map(named).collect())
}

fn slashed(arg: &str) -> Result<Target<'_>> {
    match arg.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Target { kind: by_name(kind)?, name: Some(name) })
        }
        Some(_) => Err(CliError::local(format!(
            "arguments in resource/name form may not have more than one slash, \
             and both parts must be there: {arg:?}"
        ))),
        None => Err(CliError::local(
            "there is no need to specify a resource type as a separate argument when passing \
             arguments in resource/name form (e.g. 'quorate get resource/<resource_name>' \
             instead of 'quorate get resource resource/<resource_name>'",
        )),
    }
}

/// A kind, or all kinds of a category such as `all`.
fn expand(word: &str) -> Result<Vec<&'static Kind>> {
    let category: Vec<_> =
        kinds().into_iter().filter(|kind| kind.categories.contains(&word)).collect();
    if category.is_empty() { Ok(vec![by_name(word)?]) } else { Ok(category) }
}

/// Finds a kind by any of its names.
///
/// # Errors
/// When there is none.
pub fn by_name(word: &str) -> Result<&'static Kind> {
    Kind::by_resource(word)
        .ok_or_else(|| CliError::local(format!("the server doesn't have a resource type {word:?}")))
}

/// `pod/web`, `deployment.apps/web`: how messages name an object.
#[must_use]
pub fn reference(kind: &Kind, name: &str) -> String {
    if kind.group.is_empty() {
        format!("{}/{name}", kind.singular)
    } else {
        format!("{}.{}/{name}", kind.singular, kind.group)
    }
}

/// The kind of an object.
///
/// # Errors
/// When it is none that is served.
pub fn kind_of(value: &Value) -> Result<&'static Kind> {
    let api_version = crate::json::text(value, "/apiVersion");
    let kind = crate::json::text(value, "/kind");
    Kind::by_gvk(api_version, kind).ok_or_else(|| {
        CliError::local(format!("no matches for kind {kind:?} in version {api_version:?}"))
    })
}

#[cfg(test)]
#[path = "resource_test.rs"]
mod tests;
