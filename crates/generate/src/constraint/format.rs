//! The formats of strings that schemas may name, as regular expressions: each matches nothing that its standard refuses, and
//! may leave out what no one writes (leap seconds, quoted names in addresses).

/// The expression of a format; `None` if it is not known.
pub(super) fn format(name: &str) -> Option<String> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, write)| write())
}

/// A format's name, and what writes its expression.
type Format = (&'static str, fn() -> String);

/// All formats by name.
pub(super) const FORMATS: &[Format] = &[
    ("date", date),
    ("time", time),
    ("date-time", || format!("{}T{}", date(), time())),
    ("duration", duration),
    ("email", || format!("{ATOM}(?:\\.{ATOM}){{0,4}}@{}", hostname())),
    ("hostname", hostname),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("uuid", || "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}".into()),
    ("uri", uri),
];

/// A part of an address before the @ (RFC 5321, Atom).
const ATOM: &str = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]{1,12}";

/// RFC 3339, full-date: with the lengths of months and leap years, from year 1.
fn date() -> String {
    let year = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    let leap = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
    let long = r"(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])";
    let short = r"(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)";
    let february = r"02-(?:0[1-9]|1[0-9]|2[0-8])";
    format!("(?:{year}-(?:{long}|{short}|{february})|{leap}-02-29)")
}

/// RFC 3339, full-time.
fn time() -> String {
    let minutes = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]";
    format!(r"{minutes}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{minutes})")
}

/// RFC 3339, appendix A.
fn duration() -> String {
    let n = "[0-9]{1,4}";
    let time = format!("T(?:{n}H(?:{n}M(?:{n}S)?)?|{n}M(?:{n}S)?|{n}S)");
    let date = format!("(?:{n}Y(?:{n}M(?:{n}D)?)?|{n}M(?:{n}D)?|{n}D)");
    format!("P(?:{date}(?:{time})?|{time}|{n}W)")
}

/// RFC 1123: labels between dots.
fn hostname() -> String {
    // No two hyphens in a row: `xn--` begins names in another script, which have rules of their own.
    let label = "[0-9A-Za-z]{1,12}(?:-[0-9A-Za-z]{1,12}){0,3}";
    format!(r"(?:{label}\.){{0,3}}[A-Za-z]{{2,12}}")
}

fn ipv4() -> String {
    let byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    format!(r"(?:{byte}\.){{3}}{byte}")
}

/// RFC 4291, section 2.2: eight groups, or fewer around one `::`.
fn ipv6() -> String {
    let group = "[0-9a-f]{1,4}";
    let mut forms = vec![format!("(?:{group}:){{7}}{group}"), format!("::(?:(?:{group}:){{0,6}}{group})?")];
    for before in 1..=6 {
        forms.push(format!("(?:{group}:){{{before}}}:(?:(?:{group}:){{0,{}}}{group})?", 6 - before));
    }
    format!("(?:{})", forms.join("|"))
}

/// RFC 3986: a scheme, and an authority or a path.
fn uri() -> String {
    let plain = r"[0-9A-Za-z._~!$&'()*+,;=:@-]";
    let segment = format!("(?:{plain}|%[0-9A-F]{{2}}){{0,40}}");
    let path = format!("(?:/{segment}){{0,8}}");
    let query = format!(r"(?:\?(?:{segment}/){{0,4}}{segment})?(?:#{segment})?");
    format!("[a-z][0-9a-z+.-]{{1,11}}:(?://{}(?::[0-9]{{1,4}})?{path}|{plain}{segment}{path}){query}", hostname())
}
