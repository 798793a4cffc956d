//! `-o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName`

use std::str::FromStr;

use serde_json::Value;

use quorate_objects::jsonpath::JsonPath;

/// Headings with their paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns(Vec<(String, JsonPath)>);

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let column = |part: &str| {
            let (heading, path) = part
                .split_once(':')
                .ok_or_else(|| format!("{part:?} is not HEADING:.path in custom-columns"))?;
            let path = path.trim_matches(['{', '}']);
            Ok((heading.to_owned(), format!("{{{path}}}").parse()?))
        };
        text.split(',').map(column).collect::<Result<_, String>>().map(Self)
    }
}

impl Columns {
    /// The headings.
    #[must_use]
    pub fn headings(&self) -> Vec<String> {
        self.0.iter().map(|(heading, _)| heading.clone()).collect()
    }

    /// An object's cells.
    #[must_use]
    pub fn row(&self, object: &Value) -> Vec<String> {
        let cell = |(_, path): &(String, JsonPath)| {
            let text = path.render(object).replace(' ', ",");
            if text.is_empty() { "<none>".to_owned() } else { text }
        };
        self.0.iter().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let columns: Columns = "NAME:.metadata.name,NODE:.spec.nodeName".parse().unwrap();
        assert_eq!(columns.headings(), ["NAME", "NODE"]);
        assert_eq!(columns.row(&serde_json::json!({"metadata": {"name": "a"}})), ["a", "<none>"]);
        assert!("NAME".parse::<Columns>().is_err());
    }
}
