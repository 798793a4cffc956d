//! Field errors in Kubernetes' words.

use std::fmt;

use crate::kind::Kind;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It must be there.
    Required,
    /// Its value is not allowed.
    Invalid,
    /// Its value is not one of a fixed set.
    NotSupported,
    /// It may not be set, or not be changed.
    Forbidden,
    /// The value occurs twice.
    Duplicate,
    /// What it names does not exist.
    NotFound,
    /// The value is too long.
    TooLong,
    /// There is no such field.
    UnknownField,
    /// The field is given twice.
    DuplicateField,
    /// The value has the wrong type.
    WrongType,
}

/// One field that is wrong. Its `Display` is Kubernetes' text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where, for instance `spec.containers[0].image`.
    pub path: String,
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The bad value as JSON, when it helps.
    pub value: Option<String>,
    /// Details; may be empty.
    pub message: String,
}

impl FieldError {
    /// The field is missing.
    pub fn required(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, None, message)
    }

    /// The value is not allowed.
    pub fn invalid(
        path: impl Into<String>,
        value: impl serde::Serialize,
        message: impl Into<String>,
    ) -> Self {
        Self::new(FieldErrorKind::Invalid, path, Some(json(&value)), message)
    }

    /// The value is not one of `supported`.
    pub fn not_supported(path: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|text| format!("\"{text}\"")).collect();
        let message = format!("supported values: {}", list.join(", "));
        Self::new(FieldErrorKind::NotSupported, path, Some(json(&value)), message)
    }

    /// The field may not be set or changed.
    pub fn forbidden(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, None, message)
    }

    /// The value occurs twice.
    pub fn duplicate(path: impl Into<String>, value: impl serde::Serialize) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, Some(json(&value)), "")
    }

    /// What the value names does not exist.
    pub fn not_found(path: impl Into<String>, value: impl serde::Serialize) -> Self {
        Self::new(FieldErrorKind::NotFound, path, Some(json(&value)), "")
    }

    pub(crate) fn new(
        kind: FieldErrorKind,
        path: impl Into<String>,
        value: Option<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { path: path.into(), kind, value, message: message.into() }
    }

    /// The text without the path, as BadRequest field violations carry it.
    #[must_use]
    pub fn description(&self) -> String {
        let head = match self.kind {
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Invalid | FieldErrorKind::WrongType => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::UnknownField => return "unknown field".into(),
            FieldErrorKind::DuplicateField => return "field given twice".into(),
        };
        let mut text = head.to_owned();
        for part in self.value.iter().chain(Some(&self.message).filter(|m| !m.is_empty())) {
            text.push_str(": ");
            text.push_str(part);
        }
        text
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "?".into())
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FieldErrorKind::UnknownField => write!(f, "unknown field \"{}\"", self.path),
            FieldErrorKind::DuplicateField => {
                write!(f, "duplicate field \"{}\"", self.path)
            }
            _ if self.path.is_empty() => f.write_str(&self.description()),
            _ => write!(f, "{}: {}", self.path, self.description()),
        }
    }
}

/// An object that is not valid, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// `Pod`, `Deployment.apps`, …
    pub kind: String,
    /// The object's name, when it has one.
    pub name: String,
    /// All that is wrong; never empty.
    pub errors: Vec<FieldError>,
}

impl Invalid {
    /// These `errors` of an object of `kind`.
    #[must_use]
    pub fn new(kind: &Kind, name: &str, errors: Vec<FieldError>) -> Self {
        Self { kind: kind.qualified(), name: name.into(), errors }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\" is invalid: ", self.kind, self.name)?;
        let texts: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        match texts.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// Collects the errors of one object.
#[derive(Debug, Default)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// The field is missing.
    pub fn required(&mut self, path: impl Into<String>, message: &str) {
        self.push(FieldError::required(path, message));
    }

    /// The value is not allowed.
    pub fn invalid(
        &mut self,
        path: impl Into<String>,
        value: impl serde::Serialize,
        message: impl Into<String>,
    ) {
        self.push(FieldError::invalid(path, value, message));
    }

    /// The value, when given, must be one of `supported`.
    pub fn one_of(&mut self, path: impl Into<String>, value: Option<&str>, supported: &[&str]) {
        if let Some(value) = value.filter(|value| !supported.contains(value)) {
            self.push(FieldError::not_supported(path, value, supported));
        }
    }

    /// The number must not be negative.
    pub fn non_negative(&mut self, path: impl Into<String>, value: impl Into<Option<i64>>) {
        if let Some(value) = value.into().filter(|value| *value < 0) {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// The field may not change.
    pub fn immutable<T: PartialEq + serde::Serialize>(
        &mut self,
        path: impl Into<String>,
        new: &T,
        old: &T,
    ) {
        if new != old {
            self.invalid(path, new, "field is immutable");
        }
    }
}
