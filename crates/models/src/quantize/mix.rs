//! llama.cpp's mixtures: one kind for most matrices, better ones where its authors found that bits pay. A file made
//! with a mixture here has the kinds, and so the bytes, of one made there without an importance matrix.

use phyla_kernels::quant::Quant;

use super::{Facts, Role};

/// A mixture of kinds of blocks, by llama.cpp's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the field's own names")]
pub enum Mix {
    /// 4 bits and a scale for each 32.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale: every matrix.
    Q8_0,
    /// 2 bits, and 3 or 4 where that costs most.
    Q2_K,
    /// 3 bits.
    Q3_K_S,
    /// 3 bits, and 4 or 5 in attention and the last maps of feed-forward blocks.
    Q3_K_M,
    /// 3 bits, and 5 there.
    Q3_K_L,
    /// 4 bits, and 5 in the first layers.
    Q4_K_S,
    /// 4 bits, and 6 in half of the values and last maps.
    Q4_K_M,
    /// 5 bits.
    Q5_K_S,
    /// 5 bits, and 6 in half of the values and last maps.
    Q5_K_M,
    /// 6 bits.
    Q6_K,
    /// 4 bits that index a table of values.
    IQ4_NL,
    /// The same with finer scales.
    IQ4_XS,
}

use Mix::*;

impl Mix {
    /// All mixtures.
    pub const ALL: [Mix; 16] = [
        Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, IQ4_NL, IQ4_XS, Q3_K_L, Q3_K_M, Q3_K_S,
        Q2_K,
    ];

    /// The name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Q4_0 => "q4_0",
            Q4_1 => "q4_1",
            Q5_0 => "q5_0",
            Q5_1 => "q5_1",
            Q8_0 => "q8_0",
            Q2_K => "q2_k",
            Q3_K_S => "q3_k_s",
            Q3_K_M => "q3_k_m",
            Q3_K_L => "q3_k_l",
            Q4_K_S => "q4_k_s",
            Q4_K_M => "q4_k_m",
            Q5_K_S => "q5_k_s",
            Q5_K_M => "q5_k_m",
            Q6_K => "q6_k",
            IQ4_NL => "iq4_nl",
            IQ4_XS => "iq4_xs",
        }
    }

    /// The mixture of this name, in upper or lower case. As there, `q3_k`, `q4_k` and `q5_k` are the middle ones.
    pub fn from_name(name: &str) -> Option<Mix> {
        let name = name.to_lowercase();
        match name.as_str() {
            "q3_k" => Some(Q3_K_M),
            "q4_k" => Some(Q4_K_M),
            "q5_k" => Some(Q5_K_M),
            name => Self::ALL.into_iter().find(|mix| mix.name() == name),
        }
    }

    /// `general.file_type` in a GGUF file.
    pub const fn file_type(self) -> u32 {
        match self {
            Q4_0 => 2,
            Q4_1 => 3,
            Q8_0 => 7,
            Q5_0 => 8,
            Q5_1 => 9,
            Q2_K => 10,
            Q3_K_S => 11,
            Q3_K_M => 12,
            Q3_K_L => 13,
            Q4_K_S => 14,
            Q4_K_M => 15,
            Q5_K_S => 16,
            Q5_K_M => 17,
            Q6_K => 18,
            IQ4_NL => 25,
            IQ4_XS => 30,
        }
    }

    /// The kind of most matrices.
    const fn usual(self) -> Quant {
        match self {
            Q4_0 => Quant::Q4_0,
            Q4_1 => Quant::Q4_1,
            Q5_0 => Quant::Q5_0,
            Q5_1 => Quant::Q5_1,
            Q8_0 => Quant::Q8_0,
            Q2_K => Quant::Q2_K,
            Q3_K_S | Q3_K_M | Q3_K_L => Quant::Q3_K,
            Q4_K_S | Q4_K_M => Quant::Q4_K,
            Q5_K_S | Q5_K_M => Quant::Q5_K,
            Q6_K => Quant::Q6_K,
            IQ4_NL => Quant::IQ4_NL,
            IQ4_XS => Quant::IQ4_XS,
        }
    }

    /// The kind meant for a matrix, whatever the length of its rows.
    pub(crate) fn kind(self, role: Role, facts: &Facts) -> Quant {
        let usual = self.usual();
        match role {
            // One matrix with the values.
            Role::Queries(layer) | Role::Keys(layer) if facts.fused => self.values(layer, facts),
            Role::Tokens if facts.tied => self.head(),
            Role::Head => self.head(),
            Role::Values(layer) => self.values(layer, facts),
            Role::Keys(_) if facts.experts == 8 => Quant::Q8_0,
            Role::Output if facts.experts == 8 => match self {
                Q2_K | Q3_K_S | Q3_K_M | Q4_K_S | Q4_K_M | IQ4_NL | IQ4_XS => Quant::Q5_K,
                _ => usual,
            },
            Role::Output => match self {
                Q2_K => Quant::Q3_K,
                Q3_K_M => Quant::Q4_K,
                Q3_K_L => Quant::Q5_K,
                _ => usual,
            },
            Role::Down(layer) => self.down(layer, facts.layers),
            Role::Tokens | Role::Queries(_) | Role::Keys(_) | Role::Other => usual,
        }
    }

    /// Of the head: what it loses is lost in every token.
    fn head(self) -> Quant {
        if self == Q8_0 { Quant::Q8_0 } else { Quant::Q6_K }
    }

    fn values(self, layer: usize, facts: &Facts) -> Quant {
        if facts.experts == 8 {
            return Quant::Q8_0;
        }
        let grouped = facts.group >= 4;
        let kind = match self {
            Q2_K if grouped => Quant::Q4_K,
            Q2_K => Quant::Q3_K,
            Q3_K_M if layer < 2 => Quant::Q5_K,
            Q3_K_M => Quant::Q4_K,
            Q3_K_L => Quant::Q5_K,
            IQ4_NL | IQ4_XS if grouped => Quant::Q5_K,
            Q4_K_M | Q5_K_M if more_bits(layer, facts.layers) => Quant::Q6_K,
            Q4_K_S if layer < 4 => Quant::Q5_K,
            _ => self.usual(),
        };
        // Of 70 billion parameters, which eight heads of queries share each of these.
        let shared = facts.layers == 80 && facts.group > 1;
        if shared && matches!(kind, Quant::Q3_K | Quant::Q4_K) { Quant::Q5_K } else { kind }
    }

    fn down(self, layer: usize, layers: usize) -> Quant {
        match self {
            Q2_K => Quant::Q3_K,
            Q3_K_M if layer < layers / 16 => Quant::Q5_K,
            Q3_K_M => Quant::Q4_K,
            Q3_K_L => Quant::Q5_K,
            Q4_K_M | Q5_K_M if more_bits(layer, layers) => Quant::Q6_K,
            IQ4_NL | IQ4_XS | Q4_K_S if layer < layers / 8 => Quant::Q5_K,
            _ => self.usual(),
        }
    }
}

/// The first and the last eighth of the layers, and every third between them.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}
