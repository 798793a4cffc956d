//! The part of kubectl's JSON path templates that people use: text, `{.a.b}`, `{.a[0]}`,
//! `{.a[*]}`, `{.a['x.y']}`, `{.a[?(@.b=="c")]}`, `{range …}…{end}`, `{"\n"}`.

use std::str::FromStr;

use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items where the value at the path is there and (not) equal to the text.
    Where(Vec<Step>, Option<(bool, String)>),
}

impl FromStr for JsonPath {
    type Err = String;

    fn from_str(template: &str) -> Result<Self, String> {
        let mut rest = template;
        let parts = parts(&mut rest, false)?;
        Ok(Self(parts))
    }
}

impl JsonPath {
    /// Fills the template in.
    #[must_use]
    pub fn render(&self, value: &Value) -> String {
        let mut text = String::new();
        render(&self.0, value, &mut text);
        text
    }
}

fn render(parts: &[Part], value: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found: Vec<String> = walk(steps, value).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(steps, body) => {
                for item in walk(steps, value) {
                    render(body, item, out);
                }
            }
        }
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| advance(step, value)).collect();
    }
    found
}

fn advance<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let items = || value.as_array().map_or(&[][..], Vec::as_slice);
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let length = i64::try_from(items().len()).unwrap_or(i64::MAX);
            let at = if *index < 0 { length + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items().get(at)).into_iter().collect()
        }
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            _ => items().iter().collect(),
        },
        Step::Where(path, test) => {
            let keep = |item: &&Value| {
                let found = walk(path, item);
                match (found.first(), test) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(value), Some((equal, text))) => (plain(value) == *text) == *equal,
                }
            };
            items().iter().filter(keep).collect()
        }
    }
}

fn parts(rest: &mut &str, inside: bool) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    loop {
        let Some(open) = rest.find('{') else {
            if inside {
                return Err("{range} without {end} in jsonpath".into());
            }
            if !rest.is_empty() {
                parts.push(Part::Text(rest.to_owned()));
            }
            return Ok(parts);
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..])
            .ok_or_else(|| format!("unclosed action in jsonpath at {:?}", &rest[open..]))?;
        let action = rest[open + 1..open + close].trim();
        *rest = &rest[open + close + 1..];
        if action == "end" {
            return if inside {
                Ok(parts)
            } else {
                Err("{end} without {range} in jsonpath".into())
            };
        }
        parts.push(part(action, rest)?);
    }
}

fn part(action: &str, rest: &mut &str) -> Result<Part, String> {
    if let Some(path) = action.strip_prefix("range ") {
        let steps = steps(path.trim())?;
        return Ok(Part::Range(steps, parts(rest, true)?));
    }
    if action.starts_with('"') || action.starts_with('\'') {
        let quote = &action[..1];
        let inner = action[1..].strip_suffix(quote).ok_or("unclosed text in jsonpath")?;
        return Ok(Part::Text(unescape(inner)));
    }
    Ok(Part::Path(steps(action)?))
}

/// Position of the brace that closes the one at 0, not counting those in quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', _) => escaped = true,
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            ('}', None) => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"")
}

fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut rest = path.strip_prefix(['$', '@']).unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let close = bracket(after).ok_or_else(|| format!("unclosed [ in jsonpath {path:?}"))?;
            steps.push(subscript(&after[..close])?);
            rest = &after[close + 1..];
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (name, after) = field(rest);
        rest = after;
        match name.as_str() {
            "" if rest.starts_with('[') || rest.is_empty() => {}
            "" => return Err(format!("jsonpath {path:?} is not understood")),
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
    }
    Ok(steps)
}

/// A field's name up to the next `.` or `[`; a backslash keeps a dot in the name.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) if depth == 0 => return Some(at),
            (']', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

fn subscript(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Ok(index) = inner.parse() {
        return Ok(Step::Index(index));
    }
    if let Some(name) = unquote(inner) {
        return Ok(Step::Field(name.to_owned()));
    }
    let test = inner
        .strip_prefix("?(")
        .and_then(|text| text.strip_suffix(')'))
        .ok_or_else(|| format!("jsonpath [{inner}] is not understood"))?;
    let compared = ["==", "!="].into_iter().find_map(|op| Some((test.split_once(op)?, op == "==")));
    let Some(((path, text), equal)) = compared else {
        return Ok(Step::Where(steps(test.trim())?, None));
    };
    let text = text.trim();
    let text = unquote(text).unwrap_or(text).to_owned();
    Ok(Step::Where(steps(path.trim())?, Some((equal, text))))
}

fn unquote(text: &str) -> Option<&str> {
    let quote = ['"', '\''].into_iter().find(|q| text.starts_with(*q))?;
    text[1..].strip_suffix(quote)
}

/// A scalar without quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "jsonpath_test.rs"]
mod tests;
