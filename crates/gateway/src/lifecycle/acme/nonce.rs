//! Requests that an authority refuses for their nonce alone (RFC 8555 §6.5): each is sent again after a short wait.
//!
//! The library sends a request three times without any pause, which does not help with an authority of several machines
//! that tell each other of their nonces. A request that was refused has changed nothing there, so that it can be sent again
//! where it stands: what is in place for a challenge stays, and no order begins again.

use instant_acme::{Error, Problem};
use tokio::time::sleep;

use super::schedule;

/// The authority's own name for it (RFC 8555 §6.7).
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";

/// Sends a request again as long as its nonce is refused, for half a minute at most: `with_good_nonce!(account.order(url))`
/// has the value that the last `.await` of the request had. (A function that takes an async closure would do, if the compiler
/// could see that its future is `Send`.)
macro_rules! with_good_nonce {
    ($request:expr) => {{
        let mut refusals = 0;
        loop {
            let result = $request.await;
            if !$crate::lifecycle::acme::nonce::has_waited(&result, &mut refusals).await {
                break result;
            }
        }
    }};
}
pub(super) use with_good_nonce;

/// Waits until the request can be sent again; `false`: it is not to be.
///
/// # Cancel safety
/// Safe.
pub(super) async fn has_waited<T>(result: &Result<T, Error>, refusals: &mut u32) -> bool {
    *refusals += 1;
    let wait = schedule::nonce_wait(*refusals).filter(|_| result.as_ref().is_err_and(is_bad_nonce));
    if let Some(wait) = wait {
        sleep(wait).await;
    }
    wait.is_some()
}

/// The request was refused for its nonce alone.
pub(super) fn is_bad_nonce(e: &Error) -> bool {
    matches!(e, Error::Api(Problem { r#type: Some(kind), .. }) if kind == BAD_NONCE)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::Instant;

    use super::*;

    fn refused(kind: &str) -> Error {
        serde_json::from_str::<Problem>(&format!(r#"{{"type": "{kind}"}}"#)).map(Error::Api).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_again_for_its_nonce_alone_and_not_for_ever() {
        for (nonces_refused, then, requests, secs) in [
            (0, None, 1, 0),
            (1, None, 2, 1),
            (2, None, 3, 3),
            (2, Some("urn:ietf:params:acme:error:malformed"), 3, 3),
            (0, Some("urn:ietf:params:acme:error:rateLimited"), 1, 0),
            (u32::MAX, None, 6, 30),
        ] {
            let (started, mut sent) = (Instant::now(), 0);
            let mut send = || {
                sent += 1;
                if sent <= nonces_refused {
                    return ready(Err(refused(BAD_NONCE)));
                }
                ready(then.map_or(Ok(()), |kind| Err(refused(kind))))
            };
            let result = with_good_nonce!(send());
            let is_good = then.is_none() && nonces_refused < requests;
            assert_eq!((result.is_ok(), sent), (is_good, requests), "{nonces_refused} {then:?}");
            assert_eq!(started.elapsed().as_secs(), secs, "{nonces_refused}");
        }
    }
}
