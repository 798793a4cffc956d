//! Label and field selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::error::Errors;
use crate::names;

/// The text or the object is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse selector {selector:?}: {message}")]
pub struct SelectorError {
    /// What was to be parsed.
    pub selector: String,
    /// What is wrong.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            // As in Kubernetes, an absent label satisfies "not in".
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }

    fn checked(key: &str, operator: Operator) -> Result<Self, String> {
        names::label_key(key).map_err(|message| format!("key {key:?}: {message}"))?;
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            for value in values {
                names::label_value(value)
                    .map_err(|message| format!("value {value:?}: {message}"))?;
            }
        }
        Ok(Self { key: key.to_owned(), operator })
    }
}

/// A label selector: all of its requirements must hold. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses `a=b,c in (x,y),!d,e,f!=g,h notin (i)`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let error = |message: String| SelectorError { selector: text.to_owned(), message };
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text).map_err(error)? {
            requirements.push(requirement(part.trim()).map_err(error)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Every label of the map, with its value. As in a Service, an empty map selects nothing.
    #[must_use]
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let one = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        };
        Self { requirements: map.iter().map(one).collect(), nothing: map.is_empty() }
    }

    /// From the object of the API; an empty one selects everything.
    ///
    /// # Errors
    /// When an operator is unknown or has the wrong number of values.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let labels = selector.match_labels.clone().unwrap_or_default();
        let mut requirements = Self::from_map(&labels).requirements;
        for expression in selector.match_expressions.iter().flatten() {
            requirements.push(
                from_expression(expression).map_err(|message| SelectorError {
                    selector: expression.key.clone(),
                    message,
                })?,
            );
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A label and its value without which nothing is selected, if there is one: a key for
    /// indexes of selectors.
    #[must_use]
    pub fn required_label(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|r| match &r.operator {
            Operator::In(values) if values.len() == 1 => Some((r.key.as_str(), values[0].as_str())),
            _ => None,
        })
    }

    /// Do the labels satisfy it?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Do the labels, if there are any, satisfy it?
    #[must_use]
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.matches(labels.unwrap_or(&NONE))
    }

    /// Does it select everything?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let key = &requirement.key;
            f.write_str(if index > 0 { "," } else { "" })?;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::Absent => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut depth = 0_u32;
    let mut start = 0;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("found ')' without '('")?,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err("a ')' is missing".into());
    }
    parts.push(&text[start..]);
    if parts.len() == 1 && parts[0].trim().is_empty() {
        parts.clear();
    }
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if part.is_empty() {
        return Err("found ',' where a requirement was expected".into());
    }
    if let Some(open) = part.find('(') {
        let head: Vec<&str> = part[..open].split_whitespace().collect();
        let list = part[open + 1..].strip_suffix(')').ok_or("text after ')'")?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.as_slice() {
            [key, "in"] => Requirement::checked(key, Operator::In(values)),
            [key, "notin"] => Requirement::checked(key, Operator::NotIn(values)),
            _ => Err(format!("expected \"key in (…)\" or \"key notin (…)\", found {part:?}")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Requirement::checked(key.trim(), Operator::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Requirement::checked(key.trim(), Operator::In(vec![value.trim().to_owned()]));
    }
    if let Some(key) = part.strip_prefix('!') {
        return Requirement::checked(key.trim(), Operator::Absent);
    }
    Requirement::checked(part, Operator::Exists)
}

fn from_expression(expression: &LabelSelectorRequirement) -> Result<Requirement, String> {
    let values = expression.values.clone().unwrap_or_default();
    let operator = match (expression.operator.as_str(), values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("In" | "NotIn", true) => {
            return Err("must be specified when `operator` is 'In' or 'NotIn'".into());
        }
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::Absent,
        ("Exists" | "DoesNotExist", false) => {
            return Err("may not be specified when `operator` is 'Exists' or 'DoesNotExist'".into());
        }
        (other, _) => return Err(format!("not a valid selector operator: {other:?}")),
    };
    Requirement::checked(&expression.key, operator)
}

/// Checks a selector of the API inside an object.
pub(crate) fn validate(selector: &LabelSelector, path: &str, errors: &mut Errors) {
    crate::meta::validate_labels(
        selector.match_labels.as_ref(),
        &format!("{path}.matchLabels"),
        errors,
    );
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        if let Err(message) = from_expression(expression) {
            let path = format!("{path}.matchExpressions[{index}]");
            errors.invalid(path, &expression.operator, message);
        }
    }
}

/// A field selector: `metadata.name=x,spec.nodeName!=y`. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Path, value, and whether it must be equal.
    requirements: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Parses it.
    ///
    /// # Errors
    /// When a part is neither `path=value` nor `path!=value`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (path, value, true)
            } else {
                return Err(SelectorError {
                    selector: text.to_owned(),
                    message: format!("{part:?} is neither path=value nor path!=value"),
                });
            };
            requirements.push((path.trim().to_owned(), value.trim().to_owned(), equal));
        }
        Ok(Self { requirements })
    }

    /// Does it select everything?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The paths that it names.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|(path, _, _)| path.as_str())
    }

    /// The value that this field must have, when it must have one.
    #[must_use]
    pub fn required(&self, path: &str) -> Option<&str> {
        let mut all = self.requirements.iter();
        all.find(|(own, _, equal)| own == path && *equal).map(|(_, value, _)| value.as_str())
    }

    /// Does an object with these fields satisfy it? A field that is not set is empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|(path, value, equal)| {
            (field(path).unwrap_or_default() == value.as_str()) == *equal
        })
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

#[cfg(test)]
#[path = "selector_test.rs"]
mod tests;
