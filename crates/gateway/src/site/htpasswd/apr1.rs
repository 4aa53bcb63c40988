//! Apache's variant of the MD5 password hash (`apr_md5_encode` of APR). Pure.

use md5::{Digest, Md5};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ROUNDS: usize = 1000;

/// The hash as it stands behind `$apr1$SALT$`.
pub(super) fn sum(password: &[u8], salt: &[u8]) -> String {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut digest = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for chunk in password.chunks(inner.len()) {
        digest.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        digest.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut sum = digest.finalize();
    for round in 0..ROUNDS {
        let mut digest = Md5::new();
        digest.update(if round % 2 == 1 { password } else { &sum });
        if round % 3 != 0 {
            digest.update(salt);
        }
        if round % 7 != 0 {
            digest.update(password);
        }
        digest.update(if round % 2 == 1 { &sum[..] } else { password });
        sum = digest.finalize();
    }
    let mut text = String::with_capacity(22);
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let value = usize::from(sum[high]) << 16 | usize::from(sum[middle]) << 8 | usize::from(sum[low]);
        put(value, 4, &mut text);
    }
    put(usize::from(sum[11]), 2, &mut text);
    text
}

fn put(mut value: usize, digits: usize, text: &mut String) {
    for _ in 0..digits {
        text.push(char::from(ALPHABET[value % 64]));
        value /= 64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl passwd -apr1 -salt` says.
    #[test]
    fn openssl_agrees() {
        for (password, expect) in [
            ("", "L.PT565ESX4Tp2bqNs7Ie."),
            ("a", "G8IsPsylW5ROvIKsQMRG61"),
            ("secret", "h9FWgUz3n9YxylKLlR5SQ/"),
            ("a-password-that-is-longer-than-sixteen-bytes", "rgPfpD/rwq5fQwgRDf/2X0"),
            ("päss", "1gfeCu.b8nGkbEBOmanEu0"),
        ] {
            assert_eq!(sum(password.as_bytes(), b"abcdefgh"), expect, "{password}");
        }
    }
}
