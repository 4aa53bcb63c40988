//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1, RFC 7692).
//!
//! permessage-deflate passes through the relay untouched; [`deflate`](crate::deflate) is for where it is spoken at this end. No other extension is offered onward:
//! frames whose bits mean something unknown could not be relayed strictly.

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

use crate::fields::{elements, split};

pub(crate) const DEFLATE: &str = "permessage-deflate";
pub(crate) const SERVER_ALONE: &str = "server_no_context_takeover";
pub(crate) const CLIENT_ALONE: &str = "client_no_context_takeover";
pub(crate) const SERVER_BITS: &str = "server_max_window_bits";
pub(crate) const CLIENT_BITS: &str = "client_max_window_bits";

/// The part of a client's offer that may go to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// The offers of permessage-deflate, as the client wrote them.
    pub(crate) deflate: Vec<Box<str>>,
}

/// An answer that goes beyond the offer, or that no client could accept.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum BadAnswer {
    /// An extension that was not offered.
    #[error("extension {0:?} was not offered")]
    NotOffered(Box<str>),
    /// permessage-deflate with parameters that RFC 7692 §7.1 forbids.
    #[error("permessage-deflate with bad parameters: {0:?}")]
    Parameters(Box<str>),
    /// The same extension twice.
    #[error("permessage-deflate twice")]
    Twice,
}

impl Offer {
    /// Reads a client's offer; what may not pass is left out without a word (RFC 6455 §9.1).
    #[must_use]
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let offers = elements(headers, SEC_WEBSOCKET_EXTENSIONS);
        Self { deflate: offers.filter(|offer| name(offer) == DEFLATE).map(Into::into).collect() }
    }

    /// The field for the backend.
    #[must_use]
    pub(crate) fn field(&self) -> Option<HeaderValue> {
        if self.deflate.is_empty() { None } else { HeaderValue::from_str(&self.deflate.join(", ")).ok() }
    }

    /// Offers compression without what one message leaves to the next (RFC 7692 §7.1.1): each message can then be read by
    /// itself, also by a server that has not seen those before it.
    pub fn refuse_context(&mut self) {
        for offer in &mut self.deflate {
            let missing: Vec<_> = NO_CONTEXT.into_iter().filter(|name| !has_parameter(offer, name)).collect();
            if !missing.is_empty() {
                *offer = format!("{offer}; {}", missing.join("; ")).into();
            }
        }
    }

    /// Checks a backend's answer; says whether messages may be compressed.
    ///
    /// # Errors
    /// If the client would have to fail the connection over it (RFC 6455 §4.1, RFC 7692 §7.1).
    pub(crate) fn check(&self, answer: &HeaderMap) -> Result<bool, BadAnswer> {
        let mut deflate = false;
        for element in elements(answer, SEC_WEBSOCKET_EXTENSIONS) {
            if name(element) != DEFLATE || self.deflate.is_empty() {
                return Err(BadAnswer::NotOffered(name(element).into()));
            }
            if deflate {
                return Err(BadAnswer::Twice);
            }
            if !self.parameters_fit(element) {
                return Err(BadAnswer::Parameters(element.into()));
            }
            deflate = true;
        }
        Ok(deflate)
    }

    fn parameters_fit(&self, answer: &str) -> bool {
        let mut seen: Vec<&str> = Vec::new();
        split(answer, ';').skip(1).all(|parameter| {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (parameter, None),
            };
            let fits = match name {
                SERVER_ALONE | CLIENT_ALONE => value.is_none(),
                SERVER_BITS => value.is_some_and(is_window),
                // Only a client that offered it can honour it (RFC 7692 §7.1.2.2).
                CLIENT_BITS => value.is_some_and(is_window) && self.mentions(name),
                _ => false,
            };
            let first = !seen.contains(&name);
            seen.push(name);
            fits && first
        })
    }

    fn mentions(&self, parameter: &str) -> bool {
        let name = |p: &str| p.split('=').next().map(str::trim) == Some(parameter);
        self.deflate.iter().any(|offer| split(offer, ';').skip(1).any(name))
    }
}

/// No context is taken over from message to message, in either direction (RFC 7692 §7.1.1).
const NO_CONTEXT: [&str; 2] = [SERVER_ALONE, CLIENT_ALONE];

fn has_parameter(element: &str, name: &str) -> bool {
    split(element, ';').skip(1).any(|parameter| parameter == name)
}

/// The answer to an offer of compression as the client is to have it, so that each message can be read by itself;
/// `None`: the server's can't. The client's part may be demanded whether it was offered or not (RFC 7692 §7.1.1.2), and a
/// server that keeps a context reads messages that don't use it.
pub(crate) fn without_context(answer: &HeaderValue) -> Option<HeaderValue> {
    let text = answer.to_str().ok()?;
    let [server, client] = NO_CONTEXT;
    match (has_parameter(text, server), has_parameter(text, client)) {
        (false, _) => None,
        (true, true) => Some(answer.clone()),
        (true, false) => HeaderValue::from_str(&format!("{text}; {client}")).ok(),
    }
}

/// Both answers agree on the same, whatever the order in which they say it.
pub(crate) fn same(one: Option<&HeaderValue>, other: Option<&HeaderValue>) -> bool {
    let parameters = |answer: &HeaderValue| {
        let text = answer.to_str().unwrap_or_default().to_owned();
        let mut all: Vec<String> =
            split(&text, ';').map(|parameter| parameter.replace([' ', '"'], "")).collect();
        all.sort_unstable();
        all
    };
    one.map(parameters) == other.map(parameters)
}

pub(crate) fn name(element: &str) -> &str {
    split(element, ';').next().unwrap_or("")
}

/// 8 to 15, without leading zeros (RFC 7692 §7.1.2).
pub(crate) fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_without_a_context_is_offered_and_answered() {
        for (offered, refused) in [
            (
                "permessage-deflate",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            (
                "permessage-deflate; client_max_window_bits; server_no_context_takeover",
                "permessage-deflate; client_max_window_bits; server_no_context_takeover; client_no_context_takeover",
            ),
        ] {
            let mut offer = Offer::parse(&headers(&[offered]));
            offer.refuse_context();
            assert_eq!(offer.field().unwrap(), refused);
            offer.refuse_context();
            assert_eq!(offer.field().unwrap(), refused, "once");
        }
        let answer = |text| without_context(&HeaderValue::from_static(text));
        assert_eq!(answer("permessage-deflate"), None);
        assert_eq!(answer("permessage-deflate; client_no_context_takeover"), None);
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(answer(both).unwrap(), both);
        assert_eq!(answer("permessage-deflate; server_no_context_takeover").unwrap(), both);
    }

    #[test]
    fn answers_are_the_same_in_any_order() {
        let value = HeaderValue::from_static;
        let one = value("permessage-deflate; a; server_max_window_bits=\"9\"");
        assert!(same(Some(&one), Some(&value("permessage-deflate;server_max_window_bits=9; a"))));
        assert!(!same(Some(&one), Some(&value("permessage-deflate; a"))));
        assert!(!same(Some(&one), None) && same(None, None));
    }

    fn headers(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|&line| (SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn only_deflate_is_offered_onward() {
        let offer = Offer::parse(&headers(&[
            "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
            "foo; a=\"x, permessage-deflate\", permessage-deflate; server_no_context_takeover",
        ]));
        assert_eq!(
            offer.field().unwrap(),
            "permessage-deflate; client_max_window_bits, permessage-deflate; server_no_context_takeover"
        );
        assert_eq!(Offer::parse(&headers(&["foo"])).field(), None);
    }

    #[test]
    fn answers() {
        let plain = Offer::parse(&headers(&["permessage-deflate"]));
        let windowed = Offer::parse(&headers(&["permessage-deflate; client_max_window_bits"]));
        let none = Offer::default();
        assert_eq!(plain.check(&headers(&[])), Ok(false));
        assert_eq!(plain.check(&headers(&["permessage-deflate"])), Ok(true));
        let full = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                    server_max_window_bits=\"10\"; client_max_window_bits=15";
        assert_eq!(windowed.check(&headers(&[full])), Ok(true));
        for bad in [
            full, // this client did not offer client_max_window_bits
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; mystery",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ] {
            assert!(matches!(plain.check(&headers(&[bad])), Err(BadAnswer::Parameters(_))), "{bad}");
        }
        assert_eq!(
            plain.check(&headers(&["permessage-deflate", "permessage-deflate"])),
            Err(BadAnswer::Twice)
        );
        assert_eq!(plain.check(&headers(&["foo"])), Err(BadAnswer::NotOffered("foo".into())));
        assert_eq!(
            none.check(&headers(&["permessage-deflate"])),
            Err(BadAnswer::NotOffered("permessage-deflate".into()))
        );
    }
}
