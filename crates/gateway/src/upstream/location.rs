//! Paths on their way through, for routes that rewrite them: in requests, and in what answers say of them.
//!
//! In: the target of a request; then the fields of its answer. Out: the same with the paths of the other side. Pure.

use http::header::{CONTENT_LOCATION, HeaderValue, LOCATION, REFRESH, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use crate::site::path::{DotSegments, RequestPath};
use crate::site::rewrite::{Asked, Rewrite};

/// Why a request has no path for its server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTarget {
    /// What the client has written becomes one when it is put in.
    #[error("{0}")]
    Dots(#[from] DotSegments),
    /// It is no target any more, which a path from a route can't cause.
    #[error("{0}")]
    Uri(#[from] http::uri::InvalidUri),
    /// The same.
    #[error("{0}")]
    Parts(#[from] http::uri::InvalidUriParts),
}

/// Gives the target the path that the server knows. `*` stands for the server as a whole and stays.
///
/// # Errors
/// See [`BadTarget`].
pub(crate) fn request(rewrite: &Rewrite, target: &mut Uri) -> Result<(), BadTarget> {
    let path = target.path();
    if !path.starts_with('/') {
        return Ok(());
    }
    let mut new = rewrite.forward(path);
    if rewrite.puts_groups() {
        RequestPath::parse(&new)?;
    }
    if let Some(query) = target.query() {
        new.push('?');
        new.push_str(query);
    }
    let mut parts = target.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(new))?);
    *target = Uri::from_parts(parts)?;
    Ok(())
}

/// Gives paths in the fields of an answer the prefix that clients know.
pub(crate) fn answer(rewrite: &Rewrite, asked: &Asked<'_>, headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        let Ok(text) = str::from_utf8(value.as_bytes()) else { continue };
        let new = match name {
            name if *name == LOCATION || *name == CONTENT_LOCATION => rewrite.reference(text, asked),
            name if *name == REFRESH => rewrite.refresh(text, asked),
            name if *name == SET_COOKIE => rewrite.cookie(text),
            _ => None,
        };
        if let Some(new) = new.and_then(|new| HeaderValue::from_bytes(new.as_bytes()).ok()) {
            *value = new;
        }
    }
}
