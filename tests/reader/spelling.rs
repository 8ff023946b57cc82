//! How an entry is spelled: as one writes it, oddly, or so that it is void.

/// What is odd about how an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    Nothing,
    // Valid none the less.
    Spaced,
    Broken,
    Float,
    Escaped,
    // Void.
    Field,
    Repeated,
    Null,
    Cut,
    NotUtf8,
    Half,
    Newline,
    Version,
    Subject,
    Kind,
}

impl Odd {
    pub(crate) const VALID: [Self; 4] = [Self::Spaced, Self::Broken, Self::Float, Self::Escaped];
    pub(crate) const VOID: [Self; 10] = [
        Self::Field,
        Self::Repeated,
        Self::Null,
        Self::Cut,
        Self::NotUtf8,
        Self::Half,
        Self::Newline,
        Self::Version,
        Self::Subject,
        Self::Kind,
    ];

    /// The payload of an entry that is written like this by right.
    pub(crate) fn spell(self, entry: &str) -> Vec<u8> {
        let text = match self {
            Self::Nothing | Self::Subject | Self::Kind | Self::NotUtf8 | Self::Cut => {
                entry.to_owned()
            }
            Self::Spaced => format!(" {}\t", entry.replace(',', " , ")),
            Self::Broken => entry.replacen(',', ",\n", 1),
            Self::Float => entry
                .replace(r#""v":2"#, r#""v":2.0"#)
                .replace(r#""socket":2"#, r#""socket":2e0"#)
                .replace(r#""opened":1"#, r#""opened":1.0"#)
                .replace(r#""hand":1"#, r#""hand":1.0"#)
                .replace(r#","prev""#, r#".0,"prev""#),
            Self::Escaped => entry.replace(r#""facts""#, r#""\u0066acts""#),
            Self::Field => entry.replacen('{', r#"{"shard":1,"#, 1),
            Self::Repeated => entry.replacen('{', r#"{"v":2,"#, 1),
            Self::Null => entry.replacen('{', r#"{"reason":null,"#, 1),
            Self::Half => {
                entry.replacen("by\":\"", "by\":\"\\ud800", 1).replace("node", "nod\\udc00")
            }
            Self::Newline => {
                entry.replace("\"k1\"", "\"k1\\n\"").replace("\",\"v\"", "\\n\",\"v\"")
            }
            Self::Version => entry.replace(r#""v":2"#, r#""v":0"#),
        };
        let mut bytes = text.into_bytes();
        let middle = bytes.len() / 2;
        if self == Self::NotUtf8 {
            bytes[middle] = 0xff;
        } else if self == Self::Cut {
            bytes.truncate(middle);
        }
        bytes
    }
}
