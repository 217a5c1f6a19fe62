//! Weights in blocks of few bits, as GGUF files hold them: which kinds there are and how large their blocks.

/// A kind of blocks, by llama.cpp's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the field's own names")]
pub enum Quant {
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale.
    Q8_0,
    /// 2 bits; sixteen scales and minima of 4 bits in a block of 256.
    Q2_K,
    /// 3 bits; sixteen scales of 6 bits in a block of 256.
    Q3_K,
    /// 4 bits; eight scales and minima of 6 bits in a block of 256.
    Q4_K,
    /// 5 bits; eight scales and minima of 6 bits in a block of 256.
    Q5_K,
    /// 6 bits; sixteen scales of 8 bits in a block of 256.
    Q6_K,
    /// 4 bits that index a table of sixteen values, and a scale.
    IQ4_NL,
    /// The same table; eight scales of 6 bits in a block of 256.
    IQ4_XS,
}

impl Quant {
    /// All kinds.
    pub const ALL: [Quant; 12] = [
        Quant::Q4_0,
        Quant::Q4_1,
        Quant::Q5_0,
        Quant::Q5_1,
        Quant::Q8_0,
        Quant::Q2_K,
        Quant::Q3_K,
        Quant::Q4_K,
        Quant::Q5_K,
        Quant::Q6_K,
        Quant::IQ4_NL,
        Quant::IQ4_XS,
    ];

    /// The number of the type in a GGUF file.
    pub const fn id(self) -> u32 {
        match self {
            Quant::Q4_0 => 2,
            Quant::Q4_1 => 3,
            Quant::Q5_0 => 6,
            Quant::Q5_1 => 7,
            Quant::Q8_0 => 8,
            Quant::Q2_K => 10,
            Quant::Q3_K => 11,
            Quant::Q4_K => 12,
            Quant::Q5_K => 13,
            Quant::Q6_K => 14,
            Quant::IQ4_NL => 20,
            Quant::IQ4_XS => 23,
        }
    }

    /// Elements of a block.
    pub const fn block(self) -> usize {
        match self {
            Quant::Q4_0 | Quant::Q4_1 | Quant::Q5_0 | Quant::Q5_1 | Quant::Q8_0 | Quant::IQ4_NL => 32,
            _ => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Quant::Q4_0 | Quant::IQ4_NL => 18,
            Quant::Q4_1 => 20,
            Quant::Q5_0 => 22,
            Quant::Q5_1 => 24,
            Quant::Q8_0 => 34,
            Quant::Q2_K => 84,
            Quant::Q3_K => 110,
            Quant::Q4_K => 144,
            Quant::Q5_K => 176,
            Quant::Q6_K => 210,
            Quant::IQ4_XS => 136,
        }
    }
}
