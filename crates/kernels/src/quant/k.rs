//! What the K formats share: 256 codes in groups of 16 or 32, whose scales are small whole numbers times one f16.

pub(super) mod q2;
pub(super) mod q3;
pub(super) mod q45;
pub(super) mod q6;

use super::fit::nearest;

/// `scale * code - min` over groups of `N`.
#[inline(always)]
fn affine_values<const N: usize>(out: &mut [f32; 256], codes: &[u8; 256], scales: &[f32], mins: &[f32]) {
    for ((out, codes), (scale, min)) in out.chunks_exact_mut(N).zip(codes.chunks_exact(N)).zip(scales.iter().zip(mins))
    {
        for (y, code) in out.iter_mut().zip(codes) {
            *y = scale * f32::from(*code) - min;
        }
    }
}

/// `scale * (code - zero)` over groups of 16.
#[inline(always)]
fn centred_values(out: &mut [f32; 256], codes: &[u8; 256], scales: &[f32; 16], zero: i32) {
    for ((out, codes), scale) in out.chunks_exact_mut(16).zip(codes.chunks_exact(16)).zip(scales) {
        for (y, code) in out.iter_mut().zip(codes) {
            *y = scale * (i32::from(*code) - zero) as f32;
        }
    }
}

/// Sets the codes of groups of `N` again for the scales and minima that the block will hold, which are rounded twice.
/// Groups whose scale became 0 keep their codes: none would say more.
#[inline(always)]
fn set_affine<const N: usize>(codes: &mut [u8; 256], x: &[f32; 256], scales: &[f32], mins: &[f32], top: f32) {
    for ((codes, x), (scale, min)) in codes.chunks_exact_mut(N).zip(x.chunks_exact(N)).zip(scales.iter().zip(mins)) {
        if *scale != 0.0 {
            for (code, x) in codes.iter_mut().zip(x) {
                *code = nearest((x + min) / scale, 0.0, top) as u8;
            }
        }
    }
}

/// As [`set_affine`], for codes around `zero` in groups of 16.
#[inline(always)]
fn set_centred(codes: &mut [u8; 256], x: &[f32; 256], scales: &[f32; 16], zero: f32) {
    for ((codes, x), scale) in codes.chunks_exact_mut(16).zip(x.chunks_exact(16)).zip(scales) {
        if *scale != 0.0 {
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (nearest(x / scale, -zero, zero - 1.0) + zero) as u8;
            }
        }
    }
}

/// Whole numbers of 0 to `top` in proportion to `scales`, and what one of them stands for; all zero where no scale is
/// above zero.
#[inline(always)]
fn whole_scales<const L: usize>(scales: &[f32; L], top: f32) -> ([u8; L], f32) {
    let max = scales.iter().fold(0f32, |max, &x| if x > max { x } else { max });
    let inverse = if max > 0.0 { top / max } else { 0.0 };
    (scales.map(|scale| nearest(inverse * scale, 0.0, top) as u8), max / top)
}

/// The scale of the largest magnitude, with its sign.
#[inline(always)]
fn extreme(scales: &[f32; 16]) -> f32 {
    scales.iter().fold(0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme })
}
