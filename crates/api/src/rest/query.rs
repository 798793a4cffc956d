//! Parameters of a request.

use std::str::FromStr;

use axum::http::Uri;
use quorate_objects::{FieldError, FieldSelector, FieldValidation, Selector};
use quorate_registry::RegistryError;

use super::failure::{Failure, Result};

/// The decoded query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What unknown fields cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validation {
    Strict,
    /// They are dropped, and named in `Warning` headers.
    Warn,
    Ignore,
}

impl Validation {
    /// As the registry knows it: what is warned about is dropped there.
    pub fn of_registry(self) -> FieldValidation {
        if self == Self::Strict { FieldValidation::Strict } else { FieldValidation::Ignore }
    }
}

impl Query {
    pub fn of(uri: &Uri) -> Self {
        let text = uri.query().unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// A parameter that is given and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut given = self.0.iter().filter(|(key, value)| key == name && !value.is_empty());
        given.next().map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is read from text.
    ///
    /// # Errors
    /// Names the parameter.
    pub fn parse<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Failure::bad_request(format!("the parameter {name} is no {what}: {text:?}"))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A parameter that is true or false. Given without a value it is true.
    ///
    /// # Errors
    /// Names the parameter.
    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.maybe_flag(name)?.unwrap_or(false))
    }

    /// [`Self::flag`], and `None` when it is not given.
    ///
    /// # Errors
    /// Names the parameter.
    pub fn maybe_flag(&self, name: &str) -> Result<Option<bool>> {
        match self.all(name).next() {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
            Some(other) => Err(Failure::bad_request(format!(
                "the parameter {name} is neither true nor false: {other:?}"
            ))),
        }
    }

    /// # Errors
    /// When a selector is none.
    pub fn selectors(&self) -> Result<(Selector, FieldSelector)> {
        let labels = Selector::parse(self.get("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(self.get("fieldSelector").unwrap_or_default());
        Ok((labels.map_err(RegistryError::from)?, fields.map_err(RegistryError::from)?))
    }

    /// # Errors
    /// When it is something other than `All`.
    pub fn dry_run(&self, kind: &str) -> Result<bool> {
        let values: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        dry_run(kind, &values)
    }

    /// # Errors
    /// When it is none of the three.
    pub fn validation(&self) -> Result<Validation> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Strict") => Ok(Validation::Strict),
            Some("Ignore") => Ok(Validation::Ignore),
            Some(other) => {
                let supported = ["Ignore", "Warn", "Strict"];
                let error = FieldError::not_supported("fieldValidation", other, &supported);
                Err(Failure::invalid("CreateOptions.meta.k8s.io", "", error))
            }
        }
    }
}

/// `dryRun` is a list in which only `All` may be.
pub(crate) fn dry_run(kind: &str, values: &[&str]) -> Result<bool> {
    if let Some(other) = values.iter().find(|value| **value != "All") {
        let error = FieldError::not_supported("dryRun", other, &["All"]);
        return Err(Failure::invalid(kind, "", error));
    }
    Ok(!values.is_empty())
}

#[cfg(test)]
#[path = "query_test.rs"]
mod tests;
