//! A configuration document as flat `section.key` entries, each with the line that it came from.
//!
//! Scalars keep the text that stands in the file: an unquoted hexadecimal key that happens to consist of digits only
//! must not pass through a number on its way.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// One value of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing stands after the colon: as good as absent.
    Null,
    /// One scalar, as written (without quotes).
    Scalar(String),
    /// A list of scalars.
    List(Vec<String>),
}

/// A value and the line on which it stands, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// The line.
    pub line: u64,
    /// The key with the case in which it is written.
    pub written: String,
}

/// All entries by their lower-case dotted key.
pub type Entries = BTreeMap<String, Entry>;

/// Reads a document.
///
/// # Errors
/// What is wrong with it as YAML, or a shape that no configuration has, with line and column.
pub fn parse(source: &str) -> Result<Entries, String> {
    let mut entries = Entries::new();
    if source.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(entries);
    }
    // The words and the place only: the library would quote the lines, and one of them may hold a password.
    let root: Spanned<Tree> =
        serde_saphyr::from_str(source).map_err(|error: serde_saphyr::Error| error.without_snippet().to_string())?;
    match root.value {
        Tree::Null => {}
        Tree::Map(fields) => flatten(source, "", fields, &mut entries)?,
        Tree::Text(_) | Tree::Plain | Tree::List(_) => {
            return Err("line 1: expected `key: value` lines, got a single value".to_owned());
        }
    }
    Ok(entries)
}

/// The document as the YAML reader hands it over; `Plain` scalars are looked up in the source by their position.
enum Tree {
    Null,
    Text(String),
    Plain,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
}

fn flatten(source: &str, prefix: &str, fields: Vec<(String, Spanned<Tree>)>, into: &mut Entries) -> Result<(), String> {
    for (name, tree) in fields {
        let written = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let line = tree.referenced.line();
        let value = match tree.value {
            Tree::Map(inner) => {
                flatten(source, &written, inner, into)?;
                continue;
            }
            Tree::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    let line = item.referenced.line();
                    match scalar(source, item) {
                        Some(Value::Scalar(text)) => texts.push(text),
                        _ => return Err(format!("line {line}: {written}: expected a list of plain values")),
                    }
                }
                Value::List(texts)
            }
            _ => scalar(source, tree).unwrap_or(Value::Null),
        };
        let key = written.to_lowercase();
        if let Some(earlier) = into.get(&key) {
            return Err(format!("line {line}: {written} stands a second time (first on line {})", earlier.line));
        }
        into.insert(key, Entry { value, line, written });
    }
    Ok(())
}

fn scalar(source: &str, tree: Spanned<Tree>) -> Option<Value> {
    match tree.value {
        Tree::Null => Some(Value::Null),
        Tree::Text(text) => Some(Value::Scalar(text)),
        Tree::Plain => {
            let span = tree.defined.span();
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
            source.get(start..end).map(|text| Value::Scalar(text.trim().to_owned()))
        }
        Tree::List(_) | Tree::Map(_) => None,
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(name) = fields.next_key::<String>()? {
            map.push((name, fields.next_value()?));
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Value {
        Value::Scalar(text.to_owned())
    }

    #[test]
    fn sections_become_dotted_keys_with_lines() {
        let entries =
            parse("# comment\nenvironment: development\nnats:\n  url: nats://a:4222\n  tls:\n    ca_cert: ca.pem\n")
                .expect("valid");
        assert_eq!(entries["environment"].value, scalar("development"));
        assert_eq!(entries["environment"].line, 2);
        assert_eq!(entries["nats.url"].value, scalar("nats://a:4222"));
        assert_eq!(entries["nats.url"].line, 4);
        assert_eq!(entries["nats.tls.ca_cert"].line, 6);
    }

    #[test]
    fn scalars_keep_the_text_in_the_file() {
        let digits = "0123456789".repeat(6) + "1234";
        let source = format!("a: {digits}\nb: 1e5\nc: true\nd: \"007\"\ne: 0x10\nf: 12\ng:\nh: -3 # tail\ni: ''\n");
        let entries = parse(&source).expect("valid");
        assert_eq!(entries["a"].value, Value::Scalar(digits));
        assert_eq!(entries["b"].value, scalar("1e5"));
        assert_eq!(entries["c"].value, scalar("true"));
        assert_eq!(entries["d"].value, scalar("007"));
        assert_eq!(entries["e"].value, scalar("0x10"));
        assert_eq!(entries["f"].value, scalar("12"));
        assert_eq!(entries["g"].value, Value::Null);
        assert_eq!(entries["h"].value, scalar("-3"));
        assert_eq!(entries["i"].value, scalar(""));
    }

    #[test]
    fn lists_hold_scalars_only() {
        let entries = parse("a: [x, 2]\nb:\n  - y\n").expect("valid");
        assert_eq!(entries["a"].value, Value::List(vec!["x".to_owned(), "2".to_owned()]));
        assert_eq!(entries["b"].value, Value::List(vec!["y".to_owned()]));
        assert!(parse("a: [[1]]\n").is_err());
    }

    #[test]
    fn keys_are_looked_up_without_regard_to_case() {
        let entries = parse("NATS:\n  Url: x\n").expect("valid");
        assert_eq!(entries["nats.url"].written, "NATS.Url");
        assert!(parse("a: 1\nA: 2\n").expect_err("twice").contains("second time"));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(parse("just text\n").is_err());
        assert!(parse("a: [\n").is_err());
        assert!(parse("a: 1\na: 2\n").is_err());
        assert_eq!(parse("# nothing\n\n"), Ok(Entries::new()));
    }
}
