//! What commands print: tables, JSON, YAML, names, JSON paths, columns.

pub mod columns;
pub mod print;
pub mod table;

use std::str::FromStr;

use crate::output::columns::Columns;
use quorate_objects::jsonpath::JsonPath;

/// The value of `-o`.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `pod/web`
    Name,
    /// `jsonpath=TEMPLATE`
    JsonPath(JsonPath),
    /// `custom-columns=HEADING:.path,…`
    Columns(Columns),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wide" => return Ok(Self::Wide),
            "json" => return Ok(Self::Json),
            "yaml" => return Ok(Self::Yaml),
            "name" => return Ok(Self::Name),
            _ => {}
        }
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return template.parse().map(Self::JsonPath);
        }
        if let Some(columns) = text.strip_prefix("custom-columns=") {
            return columns.parse().map(Self::Columns);
        }
        Err(format!(
            "unable to match a printer suitable for the output format {text:?}, allowed formats \
             are: custom-columns, json, jsonpath, name, wide, yaml"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert_eq!("wide".parse(), Ok(Format::Wide));
        assert!(matches!("jsonpath={.a}".parse(), Ok(Format::JsonPath(_))));
        assert!("xml".parse::<Format>().unwrap_err().contains("allowed formats"));
        assert!("jsonpath={.a".parse::<Format>().is_err());
    }
}
