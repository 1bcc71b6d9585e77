//! The bytes that signatures over all fields of a document cover.

/// Length-prefixed fields: no two different lists of fields have the same bytes.
#[derive(Default)]
pub(crate) struct FieldBytes(pub Vec<u8>);

impl FieldBytes {
    pub fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    pub fn length(&mut self, length: usize) -> &mut Self {
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
        self
    }

    pub fn string_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len()).0.extend_from_slice(bytes);
        self
    }

    pub fn string(&mut self, text: &str) -> &mut Self {
        self.string_bytes(text.as_bytes())
    }

    pub fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            None => self.tag(0),
            Some(bytes) => self.tag(1).string_bytes(bytes),
        }
    }
}
