//! The element types of a checkpoint; which of them become numbers is `tensor.rs`'s affair.

use std::fmt;

use phyla_kernels::quant::Quant;

/// Element type of a stored tensor, spelled as its format spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One byte per truth value.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// 8-bit float, 4 exponent and 3 mantissa bits.
    F8E4M3,
    /// 8-bit power of two, as used for block scales.
    F8E8M0,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Single precision.
    F32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// Double precision.
    F64,
    /// Complex number of two f32.
    C64,
    /// Blocks of few bits, which GGUF files alone hold.
    Quant(Quant),
}

impl Dtype {
    /// Every type that a safetensors file may hold.
    pub const ALL: [Dtype; 17] = [
        Dtype::Bool,
        Dtype::U8,
        Dtype::I8,
        Dtype::F8E5M2,
        Dtype::F8E4M3,
        Dtype::F8E8M0,
        Dtype::U16,
        Dtype::I16,
        Dtype::F16,
        Dtype::BF16,
        Dtype::U32,
        Dtype::I32,
        Dtype::F32,
        Dtype::U64,
        Dtype::I64,
        Dtype::F64,
        Dtype::C64,
    ];

    /// The format's own spelling: `F32`, `BF16`, `F8_E4M3`, `Q4_K`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::F8E5M2 => "F8_E5M2",
            Dtype::F8E4M3 => "F8_E4M3",
            Dtype::F8E8M0 => "F8_E8M0",
            Dtype::U16 => "U16",
            Dtype::I16 => "I16",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::U32 => "U32",
            Dtype::I32 => "I32",
            Dtype::F32 => "F32",
            Dtype::U64 => "U64",
            Dtype::I64 => "I64",
            Dtype::F64 => "F64",
            Dtype::C64 => "C64",
            Dtype::Quant(quant) => name(quant),
        }
    }

    /// The type that safetensors spells `name`; `None` for one that cannot be read (the 4- and 6-bit floats among them).
    pub fn parse(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.as_str() == name)
    }

    /// Elements of one block: 1, except for quantised types.
    pub fn block(self) -> usize {
        match self {
            Dtype::Quant(quant) => quant.block(),
            _ => 1,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::F8E5M2 | Dtype::F8E4M3 | Dtype::F8E8M0 => 1,
            Dtype::U16 | Dtype::I16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::U32 | Dtype::I32 | Dtype::F32 => 4,
            Dtype::U64 | Dtype::I64 | Dtype::F64 | Dtype::C64 => 8,
            Dtype::Quant(quant) => quant.bytes(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn name(quant: Quant) -> &'static str {
    match quant {
        Quant::Q4_0 => "Q4_0",
        Quant::Q4_1 => "Q4_1",
        Quant::Q5_0 => "Q5_0",
        Quant::Q5_1 => "Q5_1",
        Quant::Q8_0 => "Q8_0",
        Quant::Q2_K => "Q2_K",
        Quant::Q3_K => "Q3_K",
        Quant::Q4_K => "Q4_K",
        Quant::Q5_K => "Q5_K",
        Quant::Q6_K => "Q6_K",
        Quant::IQ4_NL => "IQ4_NL",
        Quant::IQ4_XS => "IQ4_XS",
    }
}
