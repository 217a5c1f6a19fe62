//! The reliability plot of a reward model: accuracy over confidence, the diagonal being what confidence should mean. No
//! curve over steps, so that it is none of `chart`.

use std::fmt::Write as _;

use super::scale::Scale;
use crate::calibration::{Bin, error};

/// Appends the plot of the last evaluation; the area of a mark says how many pairs it stands for.
pub(super) fn write(page: &mut String, bins: &[Bin], step: u64) {
    let pairs: u64 = bins.iter().map(|bin| bin.pairs).sum();
    let (size, first) = (320., 46.);
    let x = Scale { low: 0.5, high: 1., from: first, to: size - 18. };
    let y = Scale { low: 0., high: 1., from: size - 36., to: 10. };
    // Writing to a `String` cannot fail, here and below.
    let _ = write!(
        page,
        "<h2>Reliability</h2>\n<p>How often the order that the model says is right, over how sure it is of it: {pairs} \
         held-out pairs at step {step}, expected calibration error {:.3}. On the line confidence is neither too high nor too \
         low.</p>\n<div class=\"row\"><svg viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"accuracy over \
         confidence\">\n",
        error(bins)
    );
    for share in [0., 0.25, 0.5, 0.75, 1.] {
        let (at, left, right) = (y.pixel(share), x.from, x.to);
        let _ = writeln!(
            page,
            "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{share}</text>",
            left - 8.,
            at + 4.
        );
    }
    for confidence in [0.5, 0.6, 0.7, 0.8, 0.9, 1.] {
        let _ = writeln!(
            page,
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{confidence}</text>",
            x.pixel(confidence),
            y.from + 19.
        );
    }
    let _ = writeln!(
        page,
        "<path class=\"line faint\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>",
        x.pixel(0.5),
        y.pixel(0.5),
        x.pixel(1.),
        y.pixel(1.)
    );
    for bin in bins {
        let radius = 3. + 9. * (bin.pairs as f64 / pairs.max(1) as f64).sqrt();
        let _ = writeln!(
            page,
            "<circle class=\"second\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>{} pairs: confidence {:.3}, \
             accuracy {:.3}</title></circle>",
            x.pixel(bin.confidence),
            y.pixel(bin.accuracy),
            bin.pairs,
            bin.confidence,
            bin.accuracy
        );
    }
    page.push_str("</svg></div>\n");
}
