//! Which vector instructions this machine has: found once, at run time; kernels dispatch on the answer.

use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with BF16 and AMX: tiles of 16 rows of bf16 or bytes.
    Amx,
    /// AVX-512 F, BW, DQ and VL with FMA and F16C: 16 lanes of f32; BF16 and VNNI where the machine has them.
    Avx512,
    /// AVX2 with FMA and F16C: 8 lanes of f32.
    Avx2,
    /// What the compiler makes of plain Rust.
    Portable,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: [Isa; 4] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// Whether this machine can run it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512.available() && crate::amx::available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512 | Isa::Avx2 => false,
            Isa::Portable => true,
        }
    }

    /// Every instruction set of this machine, the fastest first. Tests run a kernel on each.
    pub fn all_available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.available()).collect()
    }

    /// Whether it multiplies pairs of bf16 and sums them in f32.
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self, Isa::Amx | Isa::Avx512) && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// Whether it multiplies fours of bytes and sums them in i32.
    pub fn has_int8(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self, Isa::Amx | Isa::Avx512) && is_x86_feature_detected!("avx512vnni");
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    /// The name that `PHYLA_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }
}

static CHOSEN: OnceLock<Isa> = OnceLock::new();

/// The instruction set that the kernels use: the best of this machine, or what `PHYLA_ISA` names.
///
/// A value of `PHYLA_ISA` that is unknown or that the machine lacks is reported once on standard error, and the best
/// available set is used; a program that wants to refuse instead calls [`check`] first.
pub fn isa() -> Isa {
    *CHOSEN.get_or_init(|| {
        check().unwrap_or_else(|message| {
            eprintln!("{message}; using {}", best().name());
            best()
        })
    })
}

/// The instruction set that `PHYLA_ISA` asks for (the best one where it is unset).
///
/// # Errors
/// The variable holds an unknown name, or one that this machine lacks.
pub fn check() -> Result<Isa, String> {
    choose(std::env::var("PHYLA_ISA").ok().as_deref())
}

fn best() -> Isa {
    Isa::ALL.into_iter().find(|isa| isa.available()).unwrap_or(Isa::Portable)
}

fn choose(asked: Option<&str>) -> Result<Isa, String> {
    let has = || Isa::all_available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    let Some(name) = asked.filter(|name| !name.is_empty()) else { return Ok(best()) };
    let Some(isa) = Isa::ALL.into_iter().find(|isa| isa.name() == name) else {
        return Err(format!(
            "PHYLA_ISA: expected amx, avx512, avx2 or portable, found `{name}` (this machine has: {})",
            has()
        ));
    };
    if isa.available() {
        Ok(isa)
    } else {
        Err(format!("PHYLA_ISA={}: this machine lacks it (it has: {})", isa.name(), has()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_an_error_that_lists_what_there_is() {
        let message = choose(Some("sse9")).err().unwrap_or_default();
        assert!(message.contains("sse9") && message.contains("portable"), "{message}");
    }

    #[test]
    fn every_available_set_can_be_asked_for() {
        for isa in Isa::all_available() {
            assert_eq!(choose(Some(isa.name())), Ok(isa));
        }
        assert_eq!(choose(None), Ok(best()));
    }
}
