//! Indented "Key:   value" text.

use jiff::Timestamp;
use serde_json::Value;

use crate::json::plain;
use crate::output::table;

const WIDTH: usize = 24;

/// Collects the text.
pub struct Writer {
    text: String,
    indent: usize,
    now: Timestamp,
}

impl Writer {
    pub fn new(now: Timestamp) -> Self {
        Self { text: String::new(), indent: 0, now }
    }

    pub fn finish(self) -> String {
        self.text
    }

    /// A line as it is, at the present depth.
    pub fn line(&mut self, line: &str) {
        self.text.extend(std::iter::repeat_n(' ', self.indent));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// `Key:   value`; nothing at all for an empty value is `<none>`.
    pub fn field(&mut self, key: &str, value: &str) {
        let value = if value.is_empty() { "<none>" } else { value };
        let label = format!("{key}:");
        let width = WIDTH.saturating_sub(self.indent).max(label.len() + 1);
        self.line(&format!("{label:width$}{value}"));
    }

    /// Like [`Writer::field`], but leaves empty values out.
    pub fn optional(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.field(key, value);
        }
    }

    /// What `body` writes is two columns deeper, below a heading.
    pub fn section(&mut self, heading: &str, body: impl FnOnce(&mut Self)) {
        self.line(&format!("{heading}:"));
        self.indent += 2;
        body(self);
        self.indent -= 2;
    }

    /// A map, one pair a line.
    pub fn map(&mut self, key: &str, map: Option<&Value>) {
        let pairs = map.map(|m| crate::json::pairs(m, "", "=")).unwrap_or_default();
        self.list(key, &pairs);
    }

    /// A list, one item a line.
    pub fn list(&mut self, key: &str, items: &[String]) {
        let Some(first) = items.first() else { return self.field(key, "") };
        self.field(key, first);
        let width = WIDTH.saturating_sub(self.indent).max(key.len() + 2);
        for item in &items[1..] {
            self.line(&format!("{:width$}{item}", ""));
        }
    }

    /// A table, two columns deeper.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.indent += 2;
        for line in table::render(rows).lines() {
            self.line(line);
        }
        self.indent -= 2;
    }

    /// Any JSON, in its own structure.
    pub fn value(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(map) if !map.is_empty() => self.section(key, |w| {
                for (name, field) in map {
                    w.value(name, field);
                }
            }),
            Value::Array(list) if list.iter().any(Value::is_object) => self.section(key, |w| {
                for (at, item) in list.iter().enumerate() {
                    w.value(&format!("[{at}]"), item);
                }
            }),
            Value::Array(list) => {
                self.list(key, &list.iter().map(plain).collect::<Vec<_>>());
            }
            Value::String(text) if text.contains('\n') => {
                self.section(key, |w| text.lines().for_each(|line| w.line(line)));
            }
            other => self.field(key, &plain(other)),
        }
    }

    /// How long ago a time was.
    pub fn age(&self, time: &str) -> String {
        match time.parse::<Timestamp>() {
            Ok(time) => quorate_objects::time::age(time, self.now),
            Err(_) => "<unknown>".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let mut w = Writer::new(quorate_objects::time::timestamp());
        w.field("Name", "a");
        w.map("Labels", Some(&serde_json::json!({"b": "1", "c": "2"})));
        w.section("Part", |w| w.field("Empty", ""));
        let wanted = "Name:                   a\n\
                      Labels:                 b=1\n                        c=2\n\
                      Part:\n  Empty:                <none>\n";
        assert_eq!(w.finish(), wanted);
    }
}
