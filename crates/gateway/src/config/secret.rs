//! Messages never repeat what may be a secret in a configuration. Pure.
//!
//! A key in the wrong place, a ticket key in place of the name of its file, a password in a URL: the message says
//! where it is, and not what it is.

/// Base64 or hexadecimal digits in one piece. No key is shorter, and few names are as long.
const RUN_MIN: usize = 32;
/// Of each of capitals, small letters and digits, so many are in random base64 of this length.
const EACH_MIN: usize = 3;

/// `text` holds something that is a key, or looks like one.
pub(super) fn is_likely(text: &str) -> bool {
    find(text).is_some()
}

/// A message without what may be a secret in it.
pub(super) fn left_out(message: String) -> String {
    let Some(at) = find(&message) else { return message };
    // With the quotation that it is part of.
    let before = &message[..at];
    let before = before.find('"').map_or(before, |quote| &before[..quote]);
    format!("{}… (what follows is left out, since it may be a secret)", before.trim_end())
}

/// Where it begins.
fn find(text: &str) -> Option<usize> {
    let borders = ["-----BEGIN", "-----END"].into_iter().filter_map(|border| text.find(border));
    borders.chain(password(text)).chain(run(text)).min()
}

/// The user and the password of a URL (RFC 3986 §3.2.1).
fn password(text: &str) -> Option<usize> {
    let authority = |(at, _): (usize, &str)| {
        let start = at + "://".len();
        let end = text[start..].find(['/', '"', ' ']).map_or(text.len(), |len| start + len);
        let user = text[start..end].rfind('@')?;
        text[start..start + user].contains(':').then_some(start)
    };
    text.match_indices("://").find_map(authority)
}

/// A long piece of digits as keys are written in.
fn run(text: &str) -> Option<usize> {
    let mut start = 0;
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')))
        .map(|piece| {
            // The pieces lie in the text one behind the other, with one character between them.
            let at = start;
            start += piece.len();
            start += text[start..].chars().next().map_or(0, char::len_utf8);
            (at, piece)
        })
        .find(|(_, piece)| is_digits_of_a_key(piece))
        .map(|(at, _)| at)
}

fn is_digits_of_a_key(piece: &str) -> bool {
    let count = |is: fn(&u8) -> bool| piece.bytes().filter(is).count();
    let mixed = count(u8::is_ascii_uppercase) >= EACH_MIN
        && count(u8::is_ascii_lowercase) >= EACH_MIN
        && count(u8::is_ascii_digit) >= EACH_MIN;
    let is_hex = piece.bytes().all(|byte| byte.is_ascii_hexdigit()) && count(u8::is_ascii_digit) > 0;
    piece.len() >= RUN_MIN && (mixed || is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn secrets_are_left_out_with_their_quotation() {
        let out = |message: &str| left_out(message.to_owned());
        for secret in [BASE64, HEX, "-----BEGIN PRIVATE KEY-----\\nAAAA", &format!("a {BASE64} b")] {
            let shown = out(&format!("key: expected a file, found {secret:?}; write its name"));
            assert_eq!(
                shown,
                "key: expected a file, found… (what follows is left out, since it may be a secret)"
            );
        }
        assert_eq!(out(&format!("ü {BASE64}")), "ü… (what follows is left out, since it may be a secret)");
        let url = out("proxy: expected an address, found \"http://user:secret@host/\"");
        assert!(url.starts_with("proxy: expected an address, found…") && !url.contains("secret@"), "{url}");
    }

    #[test]
    fn what_is_none_stays() {
        for text in [
            "host: expected a host name, found \"domain.com\"",
            "/etc/letsencrypt/live/domain.com/privkey.pem",
            "/srv/very/long/path/to/the/certificates/of/this/machine/fullchain",
            "internal-gateway-certificates-production-eu-west",
            "http://127.0.0.1:8282/a@b",
            "unknown key \"header_timeouts\" in [[listener]]; did you mean header_timeout?",
            "",
        ] {
            assert_eq!(left_out(text.to_owned()), text);
            assert!(!is_likely(text), "{text}");
        }
    }
}
