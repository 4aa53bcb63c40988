//! The step of tokens: one is taken out of the request before anything else can repeat it, and judged when its turn comes.

use std::sync::Arc;

use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use net_io::unix_secs;
use upgrade_handler::RequestKind;

use crate::context::identity::{Identity, Token};
use crate::request::auth::findings::{Asker, Taken};
use crate::request::reply::ErrorResponse;
use crate::site::jwt::Jwt;
use crate::site::jwt::verify::{Claims, TokenFault, key_id, verify};
use crate::site::route::Route;
use crate::telemetry::peer::cut;

/// Takes the token out of a request, wherever its route reads one.
pub(in crate::request) fn take(route: &Arc<Route>, head: &mut Parts, kind: &mut RequestKind) -> Taken {
    let auth = route.access.as_ref().and_then(|access| access.auth.as_ref());
    let Some(jwt) = auth.and_then(|auth| auth.jwt.as_ref()) else { return Taken::default() };
    let mut taken = Taken::default();
    for place in &jwt.places {
        let clears = !jwt.is_passed || place.is_always_cleared();
        let found = place.take(&mut head.headers, &mut head.uri, clears);
        taken.token = taken.token.or(found);
    }
    if let RequestKind::Upgrade(upgrade) = kind
        && !upgrade.protocols.is_empty()
    {
        upgrade.protocols.retain(|name| !jwt.places.iter().any(|place| place.is_in(name)));
        taken.offers_nothing = upgrade.protocols.is_empty();
    }
    taken
}

/// Judges the token.
///
/// # Errors
/// 401 (RFC 6750 §3), 503 if the keys have not come yet, and 400 for a handshake that offers nothing but a token.
pub(super) async fn judge(
    jwt: &Jwt,
    asker: Asker<'_>,
    (identity, fields): (&mut Identity, &mut Vec<(HeaderName, HeaderValue)>),
) -> Result<(), ErrorResponse> {
    let taken = asker.taken;
    let Some(token) = &taken.token else {
        let sentence = "this service needs a token";
        return Err(ErrorResponse::new(StatusCode::UNAUTHORIZED, sentence)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
    };
    let mut judged = verified(jwt, token);
    if let (Some(Err(TokenFault::UnknownKey)), Some(fetched)) = (&judged, jwt.keys.fetched())
        && fetched.ask_again().await
    {
        judged = verified(jwt, token);
    }
    let Some(judged) = judged else {
        let sentence = "the keys of this service's tokens have not come yet; try again later";
        return Err(ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
            .with(RETRY_AFTER, HeaderValue::from_static("5")));
    };
    judged.and_then(|claims| believe(jwt, &claims, (identity, fields))).map_err(|fault| {
        asker.failed();
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{fault}\"");
        let mut answer = ErrorResponse::new(StatusCode::UNAUTHORIZED, fault.to_string());
        if let (TokenFault::UnknownKey, Some(id)) = (fault, key_id(token)) {
            answer = answer.because(format!("{fault}: kid {:?}", cut(&id)));
        }
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => answer.with(WWW_AUTHENTICATE, challenge),
            Err(_) => answer,
        }
    })?;
    if taken.offers_nothing {
        let sentence = "offer a subprotocol beside the one that carries the token";
        return Err(ErrorResponse::new(StatusCode::BAD_REQUEST, sentence));
    }
    Ok(())
}

/// What the token says; `None`: there are no keys yet.
fn verified(jwt: &Jwt, token: &str) -> Option<Result<Claims, TokenFault>> {
    jwt.keys.with(|keys| verify(jwt, keys, token, unix_secs()))
}

fn believe(
    jwt: &Jwt,
    claims: &Claims,
    (identity, fields): (&mut Identity, &mut Vec<(HeaderName, HeaderValue)>),
) -> Result<(), TokenFault> {
    for (claim, name) in &jwt.fields {
        if let Some(value) = claims.field(claim)? {
            fields.push((name.clone(), value));
        }
    }
    if let Some(subject) = claims.text("sub") {
        identity.name(subject);
    }
    identity.expires(claims.expiry);
    identity.token = Some(kept(claims));
    Ok(())
}

/// What a reload judges.
fn kept(claims: &Claims) -> Token {
    Token {
        issuer: claims.text("iss").map(Into::into),
        audience: claims.texts("aud").into_iter().map(Into::into).collect(),
        key_id: claims.key_id.clone(),
    }
}
