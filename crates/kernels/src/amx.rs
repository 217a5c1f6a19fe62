//! Tiles of 16 rows of 64 bytes, and their product: AMX, by inline assembly, since its intrinsics are not stable.
//!
//! Eight tiles make a block of up to 2 x 2 results with its factors: results in `tmm0..=3`, of the left factor rows in
//! `tmm4` and `tmm5`, of the right one columns in `tmm6` and `tmm7`. The compiler never uses these registers by itself,
//! so what one statement leaves in them the next one finds.

use std::arch::asm;
use std::sync::OnceLock;

/// Rows and columns of a tile of results.
pub(crate) const SIDE: usize = 16;
/// Bytes of a tile.
pub(crate) const BYTES: usize = 1024;

/// Whether this machine has AMX for bf16 and bytes, and the system lets us use it.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && system_saves_tiles() && permitted())
}

fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    // `avx512bf16` implies that the system saves the wide registers, so `xgetbv` is there too.
    __get_cpuid_max(0).0 >= 7
        && std::is_x86_feature_detected!("avx512bf16")
        && std::is_x86_feature_detected!("xsave")
        && __cpuid_count(7, 0).edx & (BF16 | TILE | INT8) == BF16 | TILE | INT8
}

fn system_saves_tiles() -> bool {
    let low: u32;
    // SAFETY: `has_instructions` found `xsave`, and with it `xgetbv`.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) };
    low & (0b11 << 17) == 0b11 << 17
}

/// Linux gives a process the large state only when asked.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: this request only raises what the process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight full tiles.
static FULL: Config = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < 8 {
        row_bytes[i] = 64;
        rows[i] = 16;
        i += 1;
    }
    Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// This thread's tiles, from here until it is dropped: a thread that holds tiles costs more to put aside.
pub(crate) struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`available`] said so.
    pub(crate) unsafe fn new() -> Tiles {
        // SAFETY: the caller's promise; the configuration is one that AMX knows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FULL, options(nostack, readonly)) };
        Tiles(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were configured.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// What a block of results starts from.
#[derive(Clone, Copy)]
pub(crate) enum From {
    Zero,
    /// Rows of f32 so many bytes apart; with 0 the same row for all.
    Rows(*const f32, usize),
}

/// Where the tiles of factors begin.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub a: [*const u8; 2],
    /// Bytes from a row of a left tile to its next, and from a tile to the next.
    pub a_apart: [usize; 2],
    /// Right tiles follow one another.
    pub b: [*const u8; 2],
    /// How many of each.
    pub steps: usize,
}

/// [`Factors::a_apart`] of packed tiles.
pub(crate) const PACKED: [usize; 2] = [64, BYTES];

/// A product of tiles, of `R` by `C` tiles of results.
macro_rules! block {
    ($name:ident, $instruction:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// This thread holds [`Tiles`], and the factors' pointers are good for `steps` tiles (the second ones where `R` or
        /// `C` is 2).
        #[inline]
        pub(crate) unsafe fn $name<const R: usize, const C: usize>(f: Factors) {
            if f.steps == 0 {
                return;
            }
            let Factors { a: [a0, a1], a_apart: [row, step], b: [b0, b1], steps } = f;
            // SAFETY: the caller's promise.
            unsafe {
                match (R, C) {
                    (2, 2) => asm!(
                        "2:",
                        "tileloadd tmm6, [{b0} + {s}]",
                        "tileloadd tmm4, [{a0} + {row}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b1} + {s}]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "tileloadd tmm5, [{a1} + {row}]",
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "add {a0}, {step}", "add {a1}, {step}", "add {b0}, 1024", "add {b1}, 1024",
                        "dec {n}", "jnz 2b",
                        a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _, b0 = inout(reg) b0 => _,
                        b1 = inout(reg) b1 => _, n = inout(reg) steps => _,
                        s = in(reg) 64usize, row = in(reg) row, step = in(reg) step,
                        options(nostack, readonly),
                    ),
                    (1, 2) => asm!(
                        "2:",
                        "tileloadd tmm4, [{a0} + {row}]",
                        "tileloadd tmm6, [{b0} + {s}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b1} + {s}]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "add {a0}, {step}", "add {b0}, 1024", "add {b1}, 1024",
                        "dec {n}", "jnz 2b",
                        a0 = inout(reg) a0 => _, b0 = inout(reg) b0 => _, b1 = inout(reg) b1 => _,
                        n = inout(reg) steps => _,
                        s = in(reg) 64usize, row = in(reg) row, step = in(reg) step,
                        options(nostack, readonly),
                    ),
                    (2, 1) => asm!(
                        "2:",
                        "tileloadd tmm6, [{b0} + {s}]",
                        "tileloadd tmm4, [{a0} + {row}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm5, [{a1} + {row}]",
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        "add {a0}, {step}", "add {a1}, {step}", "add {b0}, 1024",
                        "dec {n}", "jnz 2b",
                        a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _, b0 = inout(reg) b0 => _,
                        n = inout(reg) steps => _,
                        s = in(reg) 64usize, row = in(reg) row, step = in(reg) step,
                        options(nostack, readonly),
                    ),
                    _ => asm!(
                        "2:",
                        "tileloadd tmm4, [{a0} + {row}]",
                        "tileloadd tmm6, [{b0} + {s}]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "add {a0}, {step}", "add {b0}, 1024",
                        "dec {n}", "jnz 2b",
                        a0 = inout(reg) a0 => _, b0 = inout(reg) b0 => _, n = inout(reg) steps => _,
                        s = in(reg) 64usize, row = in(reg) row, step = in(reg) step,
                        options(nostack, readonly),
                    ),
                }
            }
        }
    };
}

block!(add_bf16, "tdpbf16ps", "Adds the products of pairs of bf16 to the results, in f32.");
block!(add_bytes, "tdpbssd", "Adds the products of fours of signed bytes to the results, in i32.");

/// Sets the results of a block of `R` by `C` tiles.
///
/// # Safety
/// This thread holds [`Tiles`]; rows are good for `16 R` rows of `16 C`, or for one where they are 0 bytes apart.
#[inline]
pub(crate) unsafe fn start<const R: usize, const C: usize>(from: From) {
    // SAFETY: the caller's promise.
    unsafe {
        match from {
            From::Zero => {
                asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem),)
            }
            From::Rows(rows, apart) => {
                let below = rows.byte_add(SIDE * apart);
                asm!("tileloadd tmm0, [{} + {}]", in(reg) rows, in(reg) apart, options(nostack, readonly));
                if C == 2 {
                    asm!("tileloadd tmm1, [{} + {} + 64]", in(reg) rows, in(reg) apart, options(nostack, readonly));
                }
                if R == 2 {
                    asm!("tileloadd tmm2, [{} + {}]", in(reg) below, in(reg) apart, options(nostack, readonly));
                }
                if R == 2 && C == 2 {
                    asm!("tileloadd tmm3, [{} + {} + 64]", in(reg) below, in(reg) apart, options(nostack, readonly));
                }
            }
        }
    }
}

/// Writes the results of a block of `R` by `C` tiles to rows `apart` bytes from one another.
///
/// # Safety
/// This thread holds [`Tiles`]; the rows are good for `16 R` rows of `16 C`.
#[inline]
pub(crate) unsafe fn finish<const R: usize, const C: usize>(rows: *mut f32, apart: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let below = rows.byte_add(SIDE * apart);
        asm!("tilestored [{} + {}], tmm0", in(reg) rows, in(reg) apart, options(nostack));
        if C == 2 {
            asm!("tilestored [{} + {} + 64], tmm1", in(reg) rows, in(reg) apart, options(nostack));
        }
        if R == 2 {
            asm!("tilestored [{} + {}], tmm2", in(reg) below, in(reg) apart, options(nostack));
        }
        if R == 2 && C == 2 {
            asm!("tilestored [{} + {} + 64], tmm3", in(reg) below, in(reg) apart, options(nostack));
        }
    }
}
