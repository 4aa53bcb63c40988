//! Which content coding a client wants (RFC 9110 §12.5.3). Pure.

use http::header::{ACCEPT_ENCODING, HeaderMap};
use upgrade_handler::fields::elements;

/// A content coding that is made here or found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878, and RFC 9659 for its window).
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// As fields name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Those of `offered` that the client accepts, in the order of its preference, and of `offered` among equals.
pub(crate) fn accepted<const N: usize>(
    headers: &HeaderMap,
    offered: [Coding; N],
) -> impl Iterator<Item = Coding> + use<N> {
    let mut weighed = offered.map(|coding| (weight(headers, coding.as_str()), coding));
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight)); // a stable sort
    weighed.into_iter().filter(|(weight, _)| *weight > 0).map(|(_, coding)| coding)
}

/// In thousandths; 0: not acceptable.
fn weight(headers: &HeaderMap, coding: &str) -> u16 {
    let mut any = 0;
    for element in elements(headers, ACCEPT_ENCODING) {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let name = name.trim_end();
        // `x-gzip` is the same (RFC 9110 §8.4.1.3).
        let is_named =
            name.eq_ignore_ascii_case(coding) || (coding == "gzip" && name.eq_ignore_ascii_case("x-gzip"));
        if is_named {
            return quality(parameters);
        }
        if name == "*" {
            any = quality(parameters);
        }
    }
    any
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2). One that is malformed is not believed: the coding is not used.
fn quality(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1000;
    }
    let Some(value) = parameters.strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('=')) else {
        return 0;
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_good =
        matches!(whole, "0" | "1") && fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    if !is_good {
        return 0;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().unwrap_or(0);
    if whole == "1" { if thousandths == 0 { 1000 } else { 0 } } else { thousandths }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn chosen(fields: &[&str]) -> Vec<&'static str> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(field).unwrap());
        }
        accepted(&headers, [Coding::Br, Coding::Zstd, Coding::Gzip]).map(Coding::as_str).collect()
    }

    #[test]
    fn codings_by_their_weight() {
        for (field, expect) in [
            ("gzip, deflate, br, zstd", &["br", "zstd", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("GZIP;q=0.5, br;q=0.9", &["br", "gzip"]),
            ("gzip;q=1.0, br;q=0.999, zstd;q=0.001", &["gzip", "br", "zstd"]),
            ("br;q=0, *", &["zstd", "gzip"]),
            ("*;q=0.1, gzip ; q=0.2", &["gzip", "br", "zstd"]),
            ("gzip;q=0", &[]),
            ("gzip;q=0.000, br", &["br"]),
            ("x-gzip", &["gzip"]),
            ("identity", &[]),
            ("", &[]),
            ("*;q=0", &[]),
            ("gzip;q=2, br;q=1.001, zstd;q=0.5555", &[]),
            ("gzip;q=, br;level=5, zstd;q=-1", &[]),
            ("gzipped, brr", &[]),
            ("gzip;Q=0.3", &["gzip"]),
        ] {
            assert_eq!(chosen(&[field]), expect, "{field}");
        }
        assert_eq!(chosen(&["br;q=0.1", "gzip"]), ["gzip", "br"]);
        assert_eq!(chosen(&[]), Vec::<&str>::new());
    }
}
