//! What the page holds, and that hostile text stays text.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A curve that looks like training, without randomness from outside.
fn rows(count: u64) -> Vec<Row> {
    let mut noise = 1_u64;
    (1..=count)
        .map(|n| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jitter = (noise >> 33) as f64 / (1_u64 << 31) as f64 - 0.5;
            let step = n * 10;
            let progress = n as f64 / count as f64;
            let loss = 1.35 + 6.2 * (-progress * 9.0).exp() + 0.25 * (-progress * 2.0).exp();
            let eval = n % (count / 8).max(1) == 0;
            Row {
                step,
                tokens: step * 2048,
                time: step as f64 * 0.21,
                loss: Some(loss + 0.14 * jitter),
                lr: Some(2e-3 * (progress / 0.05).min(1.0) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())),
                grad_norm: Some(0.6 + 2.0 * (-progress * 12.0).exp() + 0.2 * jitter),
                tokens_per_second: Some(9800.0 + 400.0 * jitter),
                eval_loss: eval.then_some(loss + 0.03 + 0.05 * progress),
                perplexity: eval.then_some((loss + 0.03 + 0.05 * progress).exp()),
                eval_scores: eval.then(|| ("masked_accuracy".to_owned(), progress)).into_iter().collect(),
                peak_rss_mb: Some(612.0),
                ..Row::default()
            }
        })
        .collect()
}

fn samples() -> Vec<SampleText> {
    let sample =
        |step, text: &str| SampleText { step, prompt: "Once upon a time".into(), text: text.into(), reward: None };
    vec![
        sample(200, " there was a the little a fox wanted to the and the the garden a."),
        sample(
            6000,
            " there was a little fox who lived by the river. He wanted a red kite, but he had no string. \
             His friend the owl gave him a long thread, and together they flew the kite until the sun went down.",
        ),
    ]
}

#[test]
fn the_page_shows_every_part() {
    let (rows, samples) = (rows(600), samples());
    let warnings = vec!["resumed at step 3,000 with `optim.lr` changed from 1e-3 to 2e-3".to_owned()];
    let machine = machine();
    let report = Report {
        title: "quickstart",
        subtitle: "llama, 2.4M parameters, trained from scratch on generated stories",
        parameters: 2_421_312,
        machine: &machine,
        rows: &rows,
        samples: &samples,
        recipe: "model = \"x\"\n\n[optim]\nkind = \"adamw\"\nlr = 0.002\n",
        warnings: &warnings,
    };
    let page = report.html();
    for part in [
        "<h1>quickstart</h1>",
        "2,421,312",
        "Learning rate",
        "Validation loss",
        "Perplexity",
        "Masked accuracy",
        "the owl gave him",
        "kind = &quot;adamw&quot;",
        "resumed at step",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert_eq!(page.matches("<svg").count(), 5);
    // Nothing is fetched from anywhere.
    assert!(!page.contains("http") && !page.contains("src=") && !page.contains("@import"));
    // The data of each chart is JSON, and thinned.
    for json in page.split("<script type=\"application/json\">").skip(1) {
        let data: serde_json::Value = serde_json::from_str(json.split("</script>").next().unwrap()).unwrap();
        for series in data.as_array().unwrap() {
            assert!((1..=600).contains(&series["points"].as_array().unwrap().len()));
        }
    }
    if let Some(path) = std::env::var_os("PHYLA_TEST_REPORT") {
        std::fs::write(path, page).unwrap();
    }
}

#[test]
fn hostile_text_stays_text() {
    let nasty = "</pre><script>alert('x')</script>\u{0}&\"";
    let samples = [SampleText { step: 1, prompt: nasty.into(), text: nasty.into(), reward: None }];
    let warnings = [nasty.to_owned()];
    let report = Report {
        title: nasty,
        subtitle: nasty,
        machine: nasty,
        recipe: nasty,
        samples: &samples,
        warnings: &warnings,
        ..Report::default()
    };
    let page = report.html();
    assert!(!page.contains("<script>alert") && !page.contains('\u{0}'));
}

#[test]
fn every_amount_of_data_gives_finite_coordinates() {
    let constant = vec![Row { step: 5, loss: Some(2.0), lr: Some(0.0), ..Row::default() }; 3];
    let broken = vec![Row { step: 1, loss: Some(f64::NAN), eval_loss: Some(f64::INFINITY), ..Row::default() }];
    let huge = vec![Row { step: u64::MAX, tokens: u64::MAX, time: 1e300, loss: Some(1e300), ..Row::default() }];
    for rows in [vec![], rows(1), rows(2), rows(100_000), constant, broken, huge] {
        let page = Report { rows: &rows, ..Report::default() }.html();
        for svg in page.split("<svg").skip(1) {
            let svg = svg.split("</svg>").next().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert!(page.len() < 400_000, "{} bytes", page.len());
    }
}

#[test]
fn smoothing_neither_lags_nor_moves_the_ends() {
    // On a straight line a centred mean changes nothing until the window runs out at the end.
    let line: Vec<(f64, f64)> = (0..200).map(|n| (f64::from(n), 8.0 - 0.01 * f64::from(n))).collect();
    for (found, given) in smoothed(&line).iter().zip(&line).take(195) {
        // Prefix sums of a few hundred f64 values near 8.
        assert!((found.1 - given.1).abs() < 1e-10, "{found:?} {given:?}");
    }
    let noisy: Vec<(f64, f64)> = (0..200).map(|n| (f64::from(n), 2.0 + f64::from(n % 2))).collect();
    let smooth = smoothed(&noisy);
    assert!((smooth[199].1 - 2.5).abs() < 0.1 && (smooth[100].1 - 2.5).abs() < 0.1);
    assert!(smoothed(&[]).is_empty());
}

#[test]
fn ticks_are_round_and_inside() {
    for (low, high) in [(0.0, 6000.0), (1.2, 7.9), (0.0, 2.1e-3), (-3.0, 3.0), (1e6, 1.0001e6)] {
        let (ticks, step) = scale::ticks(low, high, 6);
        assert!((3..=13).contains(&ticks.len()), "{ticks:?}");
        assert!(ticks.iter().all(|tick| *tick >= low - step * 1e-6 && *tick <= high + step * 1e-6), "{ticks:?}");
    }
    assert_eq!(scale::label(2000.0, 1000.0), "2000");
    assert_eq!(scale::label(12_000.0, 1000.0), "12k");
    assert_eq!(scale::label(0.0005, 0.0005), "5e-4");
    assert_eq!(scale::label(1.5, 0.5), "1.5");
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(grouped(12), "12");
}
