//! What a connection begins with, when it is not what its listener speaks: said in words that tell an operator
//! what to change. In: the first bytes. Out: what they are. Pure.

/// The signature of the PROXY protocol's version 2 (HAProxy's `doc/proxy-protocol.txt`, section 2.2) behind its
/// two empty lines.
const PROXY_V2: &[u8] = b"\0\r\nQUIT\n";
/// Version 1 is text (the same, section 2.1).
const PROXY_V1: &[u8] = b"PROXY ";
/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// Methods of requests, as plain HTTP begins (RFC 9110 §9, RFC 5789).
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// Something that was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A header of the PROXY protocol, of this version.
    Proxy(u8),
    /// A TLS record with a handshake message (RFC 8446 §5.1).
    Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// A request of HTTP/1.1.
    Http1,
}

impl Opening {
    /// What `bytes`, the first of a connection, begin. `None`: nothing that is known here, or too few of it.
    #[must_use]
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if let Some(rest) = bytes.strip_prefix(b"\r\n") {
            return Self::of(rest); // hyper takes empty lines away (RFC 9112 §2.2), and may have done so
        }
        if bytes.starts_with(PROXY_V2) {
            Some(Self::Proxy(2))
        } else if bytes.starts_with(PROXY_V1) {
            Some(Self::Proxy(1))
        } else if bytes.starts_with(HTTP2_PREFACE) {
            Some(Self::Http2)
        } else if METHODS.iter().any(|method| bytes.starts_with(method)) {
            Some(Self::Http1)
        } else {
            matches!(bytes, [22, 3, ..]).then_some(Self::Tls)
        }
    }

    /// What to do about it, for the log of a listener that speaks TLS, or plain text.
    #[must_use]
    pub(crate) fn advice(self, tls: bool) -> &'static str {
        match (self, tls) {
            (Self::Proxy(_), _) => {
                "the load balancer in front sends the PROXY protocol: write its address in proxy_protocol of the listener"
            }
            (Self::Http1, true) => "the client speaks plain HTTP on a TLS port: it needs https:// or wss://",
            (Self::Http2, true) => {
                "the client speaks HTTP/2 without TLS on a TLS port: it needs https:// or wss://"
            }
            (Self::Tls, false) => {
                "the client speaks TLS on a plain-text port: use http:// or ws://, or remove `tls = false` from the listener"
            }
            (Self::Http2, false) => {
                "the client speaks HTTP/2 without TLS; without TLS only HTTP/1.1 is supported"
            }
            (Self::Http1, false) => "the client's request is not valid HTTP/1.1",
            (Self::Tls, true) => "the client's TLS is not valid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_recognised_and_nothing_else() {
        for (bytes, expect) in [
            (&b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n"[..], Some(Opening::Proxy(1))),
            (b"PROXY UNKNOWN\r\n", Some(Opening::Proxy(1))),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", Some(Opening::Proxy(2))),
            (b"\r\n\r\n\0\r\nQUIT\n", Some(Opening::Proxy(2))),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Opening::Http2)),
            (b"GET / HTTP/1.1\r\n", Some(Opening::Http1)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Opening::Http1)),
            (b"\x16\x03\x01\x02\0\x01", Some(Opening::Tls)),
            (b"\x16\x03", Some(Opening::Tls)),
            (b"", None),
            (b"\x16", None),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Opening::Http1)),
            (b"\0\r\nQUIT\n\x21", Some(Opening::Proxy(2))),
            (b"\r\n\r\n", None),
            (b"PROXYING / HTTP/1.1\r\n", None),
            (b"GETAWAY / HTTP/1.1\r\n", None),
            (b"SSH-2.0-OpenSSH_9.6\r\n", None),
        ] {
            assert_eq!(Opening::of(bytes), expect, "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
