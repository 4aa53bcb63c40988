//! permessage-deflate that is spoken at this end: which of a client's offers is accepted, and how (RFC 7692 §7.1). Pure.

use http::HeaderValue;

use crate::extensions::{
    CLIENT_ALONE, CLIENT_BITS, DEFLATE, Offer, SERVER_ALONE, SERVER_BITS, is_window, name,
};
use crate::fields::split;

/// The smallest window that zlib compresses with.
const WINDOW_BITS_MIN: u8 = 9;
/// The window that a side has if nothing is said (RFC 7692 §7.1.2).
const WINDOW_BITS_MAX: u8 = 15;

/// What a server keeps of earlier messages, for later ones to refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contexts {
    /// Of a client: two to the power of this many bytes, 8 to 15. `None`: nothing, each message is compressed by itself.
    pub from_client_bits: Option<u8>,
    /// Of what was sent to it.
    pub to_client: bool,
}

impl Contexts {
    /// Each message is compressed by itself.
    pub const NONE: Self = Self { from_client_bits: None, to_client: false };

    /// So many bytes are kept at most of what a client has sent, and of what it was sent. The former is rounded down to a power
    /// of two; less than 256 is nothing (RFC 7692 §7.1.2).
    #[must_use]
    pub fn of_lens(from_client: usize, to_client: usize) -> Self {
        let bits = from_client.checked_ilog2().and_then(|bits| u8::try_from(bits).ok());
        Self {
            from_client_bits: bits.filter(|&bits| bits >= 8).map(|bits| bits.min(WINDOW_BITS_MAX)),
            to_client: to_client > 0,
        }
    }
}

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// The client's window, 8 to 15.
    pub from_client_bits: u8,
    /// The client's messages may refer to earlier ones.
    pub from_client_kept: bool,
    /// The server's window, 9 to 15.
    pub to_client_bits: u8,
    /// The server's messages may refer to earlier ones.
    pub to_client_kept: bool,
    /// The client has to be told of its own window.
    says_client_bits: bool,
    /// The client has asked for the server's window.
    says_server_bits: bool,
}

/// One offer of a client, as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_alone: bool,
    client_alone: bool,
    server_bits: Option<u8>,
    /// The client can be told its window; with a value, it won't have a larger one.
    client_bits: Option<Option<u8>>,
}

impl Offer {
    /// Accepts the first offer that can be; `None`: there is none, and the answer says nothing of it (RFC 7692 §5.1).
    #[must_use]
    pub fn deflate(&self, contexts: Contexts) -> Option<Deflate> {
        self.deflate
            .iter()
            .filter_map(|offer| Parameters::parse(offer))
            .find_map(|offer| offer.accept(contexts))
    }
}

impl Parameters {
    /// `None`: it is to be declined, with a parameter that is unknown, invalid, or there twice (RFC 7692 §7).
    fn parse(offer: &str) -> Option<Self> {
        debug_assert_eq!(name(offer), DEFLATE);
        let (mut parameters, mut seen) = (Self::default(), Vec::new());
        for parameter in split(offer, ';').skip(1) {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
                None => (parameter, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                (SERVER_ALONE, None) => parameters.server_alone = true,
                (CLIENT_ALONE, None) => parameters.client_alone = true,
                (SERVER_BITS, Some(bits)) => parameters.server_bits = Some(window(bits)?),
                (CLIENT_BITS, None) => parameters.client_bits = Some(None),
                (CLIENT_BITS, Some(bits)) => parameters.client_bits = Some(Some(window(bits)?)),
                _ => return None,
            }
        }
        Some(parameters)
    }

    fn accept(&self, contexts: Contexts) -> Option<Deflate> {
        // zlib can't compress with 8, and says 9 where it should refuse.
        let to_client_bits = self.server_bits.unwrap_or(WINDOW_BITS_MAX);
        if to_client_bits < WINDOW_BITS_MIN {
            return None;
        }
        let kept_bits = contexts.from_client_bits.filter(|_| !self.client_alone);
        // A client that can't be told its window has the largest one (RFC 7692 §7.1.2.2).
        let from_client_bits = match (self.client_bits, kept_bits) {
            (Some(offered), Some(bits)) => bits.min(offered.unwrap_or(WINDOW_BITS_MAX)),
            _ => WINDOW_BITS_MAX,
        };
        let from_client_kept = kept_bits.is_some_and(|bits| from_client_bits <= bits);
        Some(Deflate {
            from_client_bits,
            from_client_kept,
            to_client_bits,
            to_client_kept: contexts.to_client && !self.server_alone,
            says_client_bits: from_client_bits < WINDOW_BITS_MAX,
            says_server_bits: self.server_bits.is_some(),
        })
    }
}

impl Deflate {
    /// The field of the answer. A client is told to compress each message by itself whether it has offered that or not
    /// (RFC 7692 §7.1.1.2).
    #[must_use]
    pub fn field(&self) -> HeaderValue {
        let mut field = DEFLATE.to_owned();
        for (is_said, name, bits) in [
            (!self.to_client_kept, SERVER_ALONE, None),
            (!self.from_client_kept, CLIENT_ALONE, None),
            (self.says_server_bits, SERVER_BITS, Some(self.to_client_bits)),
            (self.says_client_bits, CLIENT_BITS, Some(self.from_client_bits)),
        ] {
            if is_said {
                field.push_str("; ");
                field.push_str(name);
                if let Some(bits) = bits {
                    field.push('=');
                    field.push_str(&bits.to_string());
                }
            }
        }
        HeaderValue::try_from(field).unwrap_or(HeaderValue::from_static(DEFLATE)) // names and numbers
    }
}

/// 8 to 15, without leading zeros (RFC 7692 §7.1.2).
fn window(bits: &str) -> Option<u8> {
    if is_window(bits) { bits.parse().ok() } else { None }
}

/// A token, or one in quotes (RFC 6455 §9.1).
fn unquoted(value: &str) -> Option<&str> {
    let inside = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    (!inside.contains('"')).then_some(inside)
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};

    use super::*;

    const ALL: Contexts = Contexts { from_client_bits: Some(15), to_client: true };
    const SMALL: Contexts = Contexts { from_client_bits: Some(12), to_client: true };
    const NONE: Contexts = Contexts::NONE;

    fn answer(offer: &'static str, contexts: Contexts) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        Offer::parse(&headers).deflate(contexts).map(|deflate| deflate.field().to_str().unwrap().to_owned())
    }

    #[track_caller]
    fn check(offer: &'static str, contexts: Contexts, parameters: &str) {
        assert_eq!(answer(offer, contexts).unwrap(), format!("permessage-deflate{parameters}"), "{offer}");
    }

    #[test]
    fn offers_and_answers() {
        const BROWSER: &str = "permessage-deflate; client_max_window_bits";
        check(BROWSER, ALL, "");
        check(BROWSER, SMALL, "; client_max_window_bits=12");
        check(BROWSER, NONE, "; server_no_context_takeover; client_no_context_takeover");
        check("permessage-deflate", ALL, "");
        // It can't be told to have a smaller window.
        check("permessage-deflate", SMALL, "; client_no_context_takeover");
        check("permessage-deflate; client_max_window_bits=10", SMALL, "; client_max_window_bits=10");
        check("permessage-deflate; client_max_window_bits=8", ALL, "; client_max_window_bits=8");
        check("permessage-deflate; client_max_window_bits=\"14\"", SMALL, "; client_max_window_bits=12");
        check("permessage-deflate; server_no_context_takeover", ALL, "; server_no_context_takeover");
        check("permessage-deflate; client_no_context_takeover", ALL, "; client_no_context_takeover");
        check("permessage-deflate ; server_max_window_bits = 9", ALL, "; server_max_window_bits=9");
        check("permessage-deflate; server_max_window_bits=15", ALL, "; server_max_window_bits=15");
    }

    #[test]
    fn what_is_kept_is_a_power_of_two() {
        assert_eq!(Contexts::of_lens(0, 0), NONE);
        for (len, bits) in [
            (255, None),
            (256, Some(8)),
            (511, Some(8)),
            (4096, Some(12)),
            (32768, Some(15)),
            (1 << 40, Some(15)),
        ] {
            assert_eq!(
                Contexts::of_lens(len, 1),
                Contexts { from_client_bits: bits, to_client: true },
                "{len}"
            );
        }
    }

    #[test]
    fn what_can_not_be_accepted_is_passed_over() {
        for bad in [
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; mystery",
            "permessage-bzip2",
            "",
        ] {
            assert_eq!(answer(bad, ALL), None, "{bad}");
        }
        check(
            "x; y, permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10, permessage-deflate",
            ALL,
            "; server_max_window_bits=10",
        );
    }
}
