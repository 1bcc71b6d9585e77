//! JSON exactly as Go's `encoding/json` writes and reads it.
//!
//! Signatures cover a re-encoding of the decoded document, so every escape and every decoding rule is part of the
//! contract. Invariant: what [`parse`] accepts, Go's `json.Unmarshal` accepts with the same meaning (only nesting is
//! limited further), and what the writers here produce equals `json.Marshal` with HTML escaping on.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};

/// Nesting of arrays and objects that is read; Go reads 10 000. No document of the contract needs more than three.
pub const DEPTH_MAX: usize = 128;

/// Go's `base64.StdEncoding`: padding required, but left-over bits of the last character are not checked.
const GO_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A parsed JSON value. Numbers keep their text: Go decides by the text whether one is an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// A string with escapes resolved; invalid UTF-8 and lone surrogates are U+FFFD already.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object's members in the order of the document, repetitions included.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// What it is, for error messages: Go's words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Why a document is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Offset of the first byte that does not fit, from 0.
    pub offset: usize,
    /// What was found or missing there.
    pub problem: &'static str,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid JSON at byte {}: {}", self.offset, self.problem)
    }
}

impl std::error::Error for SyntaxError {}

/// Parses one document with nothing but white space around it.
///
/// # Errors
/// The first place where the bytes are not JSON, or nest deeper than [`DEPTH_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Value, SyntaxError> {
    let mut parser = Parser { bytes, at: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.peek().is_some() {
        return Err(parser.error("data after the document"));
    }
    Ok(value)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, problem: &'static str) -> SyntaxError {
        SyntaxError { offset: self.at, problem }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => Err(self.error("a value was expected")),
            None => Err(self.error("the document ends where a value was expected")),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, SyntaxError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("a value was expected"))
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too deeply nested"));
        }
        self.at += 1;
        let mut members = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a member's name was expected"));
            }
            let name = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.error("a colon was expected"));
            }
            self.at += 1;
            self.skip_space();
            let value = self.value(depth)?;
            members.push((name, value));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(members));
                }
                _ => return Err(self.error("a comma or the end of the object was expected")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too deeply nested"));
        }
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.error("a comma or the end of the array was expected")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.error("a digit was expected"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.error("a digit was expected"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.error("a digit was expected"));
            }
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Value::Number(text.iter().map(|&digit| char::from(digit)).collect()))
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            push_like_go(&mut text, self.bytes.get(start..self.at).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => self.escape(&mut text)?,
                Some(_) => return Err(self.error("a control character inside a string")),
                None => return Err(self.error("the document ends inside a string")),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), SyntaxError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let Some(unit) = self.hex4(self.at + 1) else {
                    return Err(self.error("four hexadecimal digits were expected"));
                };
                self.at += 5;
                text.push(self.utf16(unit));
                return Ok(());
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        text.push(plain);
        Ok(())
    }

    /// The character for a UTF-16 unit that was just read; consumes a following low surrogate that completes it.
    fn utf16(&mut self, unit: u16) -> char {
        if let Some(character) = char::from_u32(u32::from(unit)) {
            return character;
        }
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"))
            && let Some(low) = self.hex4(self.at + 2)
            && let Some(Ok(character)) = char::decode_utf16([unit, low]).next()
        {
            self.at += 6;
            return character;
        }
        char::REPLACEMENT_CHARACTER
    }

    fn hex4(&self, at: usize) -> Option<u16> {
        let digits = self.bytes.get(at..at.checked_add(4)?)?;
        digits.iter().try_fold(0, |unit: u16, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(unit << 4 | u16::try_from(digit).ok()?)
        })
    }
}

/// Appends bytes, each one that is not part of valid UTF-8 as one U+FFFD (Rust's own lossy conversion replaces longer
/// pieces at once).
fn push_like_go(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// Whether two member names are equal under Unicode simple case folding, as Go compares them. Only names that fold to
/// ASCII matter; two non-ASCII characters do.
#[must_use]
pub fn same_name(a: &str, b: &str) -> bool {
    fn folded(name: &str) -> impl Iterator<Item = char> {
        name.chars().map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
    }
    folded(a).eq(folded(b))
}

/// Decodes base64 by Go's rules: line breaks are skipped, padding is required, left-over bits are ignored.
///
/// # Errors
/// If anything else is in the text.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    if text.contains(['\r', '\n']) { GO_BASE64.decode(text.replace(['\r', '\n'], "")) } else { GO_BASE64.decode(text) }
}

/// Appends a JSON string as Go writes it with HTML escaping.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut utf8 = [0; 4];
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' => {
                let byte = character as u32 as usize;
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[byte >> 4 & 15], HEX[byte & 15]]);
            }
            '\u{2028}' => out.extend_from_slice(b"\\u2028"),
            '\u{2029}' => out.extend_from_slice(b"\\u2029"),
            character => out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Appends a Go `[]byte`: base64 text, or `null` for nil.
pub fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.extend_from_slice(b"null"),
        Some(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// Writes an object member by member, in the order of the calls.
#[derive(Debug)]
pub struct ObjectWriter {
    out: Vec<u8>,
}

impl ObjectWriter {
    /// Starts an object.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "an object that is begun is no default value")]
    pub fn new() -> Self {
        Self { out: vec![b'{'] }
    }

    /// Writes a member's name; whatever is appended to the returned buffer is its value.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        write_string(&mut self.out, name);
        self.out.push(b':');
        &mut self.out
    }

    /// A string member.
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        write_string(self.member(name), value);
        self
    }

    /// A `[]byte` member.
    pub fn bytes(&mut self, name: &str, value: Option<&[u8]>) -> &mut Self {
        write_bytes(self.member(name), value);
        self
    }

    /// An integer member.
    pub fn integer(&mut self, name: &str, value: i64) -> &mut Self {
        self.member(name).extend_from_slice(value.to_string().as_bytes());
        self
    }

    /// A truth value.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.member(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// An array member, each item written by `write`; `None` is `null`.
    pub fn array<T>(&mut self, name: &str, items: Option<&[T]>, write: impl Fn(&mut Vec<u8>, &T)) -> &mut Self {
        let out = self.member(name);
        let Some(items) = items else {
            out.extend_from_slice(b"null");
            return self;
        };
        out.push(b'[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
        self
    }

    /// Ends the object and returns its text.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}

/// Reads the members of an object into fields, as Go fills a struct: a value of the wrong type is remembered as the
/// first error and the other members are still read.
#[derive(Debug, Default)]
pub struct FieldReader {
    /// The first value that did not fit: field name and what was wrong.
    pub first_error: Option<(String, String)>,
}

impl FieldReader {
    fn wrong(&mut self, field: &str, problem: String) {
        self.first_error.get_or_insert_with(|| (field.to_owned(), problem));
    }

    /// Remembers that a value has the wrong type.
    pub fn wrong_type(&mut self, field: &str, expected: &str, got: &Value) {
        let got = match got {
            Value::Number(text) => format!("number {}", shortened(text)),
            got => got.kind().to_owned(),
        };
        self.wrong(field, format!("expected {expected}, got {got}"));
    }

    /// A Go `string`: `null` leaves the field as it is.
    pub fn string(&mut self, field: &str, value: Value, into: &mut String) {
        match value {
            Value::Null => {}
            Value::String(text) => *into = text,
            other => self.wrong_type(field, "a string", &other),
        }
    }

    /// A Go `bool`.
    pub fn boolean(&mut self, field: &str, value: Value, into: &mut bool) {
        match value {
            Value::Null => {}
            Value::Bool(truth) => *into = truth,
            other => self.wrong_type(field, "a bool", &other),
        }
    }

    /// A Go integer type: the number must be written without fraction and exponent, and fit.
    pub fn integer<T: std::str::FromStr>(&mut self, field: &str, value: Value, into: &mut T) {
        match &value {
            Value::Null => {}
            Value::Number(text) if let Ok(number) = text.parse() => *into = number,
            other => self.wrong_type(field, "an integer that fits", other),
        }
    }

    /// A Go `[]byte`: base64 text, an array of numbers, or `null` for nil.
    pub fn bytes(&mut self, field: &str, value: Value, into: &mut Option<Vec<u8>>) {
        match value {
            Value::Null => *into = None,
            Value::String(text) => match decode_base64(&text) {
                Ok(bytes) => *into = Some(bytes),
                Err(error) => self.wrong(field, format!("not standard base64: {error}")),
            },
            Value::Array(items) => {
                let mut bytes = vec![0; items.len()];
                for (item, byte) in items.into_iter().zip(&mut bytes) {
                    self.integer(field, item, byte);
                }
                *into = Some(bytes);
            }
            other => self.wrong_type(field, "base64 text", &other),
        }
    }

    /// A Go slice: an array whose items `read` turns into values, or `null` for nil.
    pub fn slice<T>(
        &mut self,
        field: &str,
        value: Value,
        into: &mut Option<Vec<T>>,
        mut read: impl FnMut(&mut Self, Value) -> T,
    ) {
        match value {
            Value::Null => *into = None,
            Value::Array(items) => *into = Some(items.into_iter().map(|item| read(self, item)).collect()),
            other => self.wrong_type(field, "an array", &other),
        }
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 32 { text.to_owned() } else { text.chars().take(32).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string_of(document: &[u8]) -> String {
        match parse(document) {
            Ok(Value::String(text)) => text,
            other => panic!("not a string: {other:?}"),
        }
    }

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_like_go() {
        assert_eq!(written("<>&"), r#""\u003c\u003e\u0026""#);
        assert_eq!(written("\u{2028}\u{2029}"), r#""\u2028\u2029""#);
        assert_eq!(written("\"\\/\u{7f}é"), "\"\\\"\\\\/\u{7f}é\"");
        assert_eq!(written("\u{8}\u{c}\n\r\t\0\u{1f}\u{b}"), r#""\b\f\n\r\t\u0000\u001f\u000b""#);
    }

    #[test]
    fn every_invalid_byte_becomes_one_replacement_character() {
        assert_eq!(string_of(b"\"a\xffb\""), "a\u{fffd}b");
        assert_eq!(string_of(b"\"\xe2\x82\""), "\u{fffd}\u{fffd}");
        assert_eq!(string_of(b"\"\xed\xa0\x80\""), "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(string_of(b"\"\xf0\x9f\x98\x41\""), "\u{fffd}\u{fffd}\u{fffd}A");
    }

    #[test]
    fn surrogates_pair_or_become_replacement_characters() {
        assert_eq!(string_of(br#""\ud83d\ude00""#), "😀");
        assert_eq!(string_of(br#""\ud83d""#), "\u{fffd}");
        assert_eq!(string_of(br#""\ude00\ud83d""#), "\u{fffd}\u{fffd}");
        assert_eq!(string_of(br#""\ud83d\ud83d\ude00""#), "\u{fffd}😀");
        assert_eq!(string_of(br#""\ud83dA""#), "\u{fffd}A");
        assert_eq!(string_of(br#""\ud83d\u0041""#), "\u{fffd}A");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "+1",
            "nul",
            "\"\t\"",
            "\"\\x\"",
            "\"\\'\"",
            "\"\\u12g4\"",
            "\"",
            "\"\\",
            "\"\\u12",
            "{} {}",
            "1 x",
            "\u{feff}{}",
            "[1 2]",
            "tru",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn base64_follows_go() {
        assert_eq!(decode_base64("aGk=").unwrap(), b"hi");
        assert_eq!(decode_base64("a\nGk\r=\n").unwrap(), b"hi");
        assert_eq!(decode_base64("aGl=").unwrap(), b"hi", "left-over bits are ignored");
        assert_eq!(decode_base64("").unwrap(), b"");
        for bad in ["aGk", "aG=k", "aGk==", "a===", "=", "aGk= ", "aG-_", "aGk=aGk="] {
            assert!(decode_base64(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_fold_like_go() {
        assert!(same_name("wallet_id", "WALLET_ID"));
        assert!(same_name("signature", "\u{17f}ignature"));
        assert!(same_name("key_type", "\u{212a}ey_type"));
        assert!(!same_name("wallet_id", "walletid"));
        assert!(!same_name("tx", "tx_id"));
    }
}
