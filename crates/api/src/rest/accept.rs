//! The form in which a client wants its answer: media types.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};

use super::failure::{Failure, Result};

/// How objects are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    #[default]
    Object,
    /// As rows of a table.
    Table,
    /// Their metadata only.
    Partial,
}

/// A form and an encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    pub form: Form,
    pub yaml: bool,
}

/// One entry of an `Accept` header.
pub(crate) struct MediaType<'a> {
    pub essence: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let params = parts.filter_map(|part| part.split_once('='));
        Self {
            essence,
            params: params.map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect(),
        }
    }

    pub fn param(&self, name: &str) -> &'a str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// All entries of the header, in order.
    pub fn accepted(headers: &'a HeaderMap) -> Vec<Self> {
        let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(Self::parse).collect()
    }
}

impl Accept {
    /// The first form of the header that we have.
    ///
    /// # Errors
    /// 406 when there is none.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let accepted = MediaType::accepted(headers);
        if accepted.is_empty() {
            return Ok(Self::default());
        }
        accepted.iter().find_map(choose).ok_or_else(|| {
            Failure::new(
                StatusCode::NOT_ACCEPTABLE,
                "NotAcceptable",
                "only the following media types are accepted: application/json, application/yaml",
            )
        })
    }

    pub fn content_type(self) -> &'static str {
        if self.yaml { "application/yaml" } else { "application/json" }
    }
}

fn choose(entry: &MediaType<'_>) -> Option<Accept> {
    let yaml = match entry.essence {
        "" | "*/*" | "application/*" | "application/json" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let form = match (entry.param("as"), entry.param("g"), entry.param("v")) {
        ("", _, _) => Form::Object,
        ("Table", "meta.k8s.io", "v1") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Form::Partial
        }
        _ => return None,
    };
    Some(Accept { form, yaml })
}

#[cfg(test)]
#[path = "accept_test.rs"]
mod tests;
