//! The values of a GGUF file's metadata: thirteen types, decoded from the map when they are asked for.

use std::fmt;

use crate::checkpoint::Shown;

/// A type of values, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Single precision.
    F32,
    /// A byte that is 0 or 1.
    Bool,
    /// A length and so many bytes of UTF-8.
    Text,
    /// A type, a length and so many values.
    List,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Double precision.
    F64,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::List,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The type of that number.
    pub(crate) fn of(id: u32) -> Option<Kind> {
        Self::ALL.get(id as usize).copied()
    }

    /// The type's number.
    pub(crate) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a value; `None` where values differ in length.
    pub(crate) fn bytes(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::List => None,
        }
    }

    /// What it holds, in words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Kind::F32 | Kind::F64 => "a number",
            Kind::Bool => "true or false",
            Kind::Text => "a string",
            Kind::List => "a list",
            _ => "a whole number",
        }
    }
}

/// A value of the metadata, borrowed from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any of the unsigned types.
    Unsigned(u64),
    /// Any of the signed types.
    Signed(i64),
    /// Either of the floats; single precision as the shortest decimal that means it.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string.
    Text(&'a str),
    /// Values of one type.
    List(List<'a>),
}

/// A list of the metadata: its bytes, decoded as one goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct List<'a> {
    pub(crate) of: Kind,
    pub(crate) len: usize,
    /// Whole values, as the header's check has shown.
    pub(crate) bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of the values.
    pub fn kind(&self) -> Kind {
        self.of
    }

    /// The values, one after another; it ends early at a string that is not UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.of, self.bytes);
        (0..self.len).map_while(move |_| {
            let (value, after) = decode(kind, rest)?;
            rest = after;
            Some(value)
        })
    }
}

/// The value of type `kind` at the start of `bytes`, and what follows it; `None` when it is cut short, is a list, or is
/// a string that is not UTF-8.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    fn first<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
        bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
    }
    Some(match kind {
        Kind::U8 => first(bytes).map(|([b], rest)| (Value::Unsigned(b.into()), rest))?,
        Kind::I8 => first(bytes).map(|(b, rest)| (Value::Signed(i8::from_le_bytes(b).into()), rest))?,
        Kind::U16 => first(bytes).map(|(b, rest)| (Value::Unsigned(u16::from_le_bytes(b).into()), rest))?,
        Kind::I16 => first(bytes).map(|(b, rest)| (Value::Signed(i16::from_le_bytes(b).into()), rest))?,
        Kind::U32 => first(bytes).map(|(b, rest)| (Value::Unsigned(u32::from_le_bytes(b).into()), rest))?,
        Kind::I32 => first(bytes).map(|(b, rest)| (Value::Signed(i32::from_le_bytes(b).into()), rest))?,
        Kind::F32 => first(bytes).map(|(b, rest)| (Value::Float(shortest(f32::from_le_bytes(b))), rest))?,
        Kind::Bool => first(bytes).map(|([b], rest)| (Value::Bool(b != 0), rest))?,
        Kind::U64 => first(bytes).map(|(b, rest)| (Value::Unsigned(u64::from_le_bytes(b)), rest))?,
        Kind::I64 => first(bytes).map(|(b, rest)| (Value::Signed(i64::from_le_bytes(b)), rest))?,
        Kind::F64 => first(bytes).map(|(b, rest)| (Value::Float(f64::from_le_bytes(b)), rest))?,
        Kind::Text => {
            let (length, rest) = first(bytes)?;
            let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(length)).ok()?)?;
            (Value::Text(std::str::from_utf8(text).ok()?), rest)
        }
        Kind::List => return None,
    })
}

/// What was written as 1e-6 is 1e-6 again, and not 9.999999974752427e-7.
pub(crate) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsigned(n) => write!(f, "{n}"),
            Value::Signed(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Text(text) => write!(f, "\"{}\"", Shown(text)),
            Value::List(list) => write!(f, "a list of {} values", list.len),
        }
    }
}

impl From<Value<'_>> for serde_json::Value {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Unsigned(n) => n.into(),
            Value::Signed(n) => n.into(),
            Value::Float(x) => x.into(),
            Value::Bool(b) => b.into(),
            Value::Text(text) => text.into(),
            Value::List(list) => list.iter().map(serde_json::Value::from).collect(),
        }
    }
}
