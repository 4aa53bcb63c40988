//! The host that a request is for. Pure.

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Version};

/// Why a request is for no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHost {
    #[error("the request has no Host")]
    Missing,
    #[error("the request has more than one Host")]
    Several,
    #[error("Host is not a host with an optional port")]
    Invalid,
    #[error(":authority and Host differ")]
    Differ,
}

/// The host that a request is for, with its port; `None` if it may go without, or its `Host` is empty. Two that differ must not
/// reach the service beside the sessions: it could take the other one.
pub(crate) fn settle(head: &mut Parts) -> Result<Option<Authority>, BadHost> {
    let field = field(&head.headers)?;
    if head.version == Version::HTTP_11 && field.is_none() {
        return Err(BadHost::Missing); // RFC 9112 §3.2: also beside an absolute target
    }
    let Some(authority) = head.uri.authority() else {
        return field.map(parse).transpose().map(Option::flatten);
    };
    if authority.as_str().contains('@') {
        return Err(BadHost::Invalid); // RFC 9110 §4.2.4
    }
    if field.is_some_and(|field| !field.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
        if head.version == Version::HTTP_2 {
            return Err(BadHost::Differ); // RFC 9113 §8.3.1
        }
        // RFC 9112 §3.2.2: the target wins.
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BadHost::Invalid)?;
        head.headers.insert(HOST, host);
    }
    Ok(Some(authority.clone()))
}

fn field(headers: &HeaderMap) -> Result<Option<&HeaderValue>, BadHost> {
    let mut lines = headers.get_all(HOST).into_iter();
    let first = lines.next();
    if lines.next().is_some() { Err(BadHost::Several) } else { Ok(first) }
}

fn parse(field: &HeaderValue) -> Result<Option<Authority>, BadHost> {
    if field.is_empty() {
        return Ok(None); // RFC 9110 §7.2
    }
    let authority = Authority::try_from(field.as_bytes()).map_err(|_| BadHost::Invalid)?;
    if authority.as_str().contains('@') { Err(BadHost::Invalid) } else { Ok(Some(authority)) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// The host that is settled on, and the field that is left.
    fn settled(version: Version, target: &str, hosts: &[&str]) -> Result<(String, String), BadHost> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let host = settle(&mut head)?.map_or_else(String::new, |host| host.to_string());
        let field = head.headers.get(HOST).map_or("", |field| field.to_str().unwrap());
        Ok((host, field.to_owned()))
    }

    #[test]
    fn a_request_is_for_one_host() {
        use Version as V;
        let both = |host: &str| Ok((host.to_owned(), host.to_owned()));
        assert_eq!(settled(V::HTTP_11, "/", &["a.test:80"]), both("a.test:80"));
        assert_eq!(settled(V::HTTP_11, "/", &["[::1]:80"]), both("[::1]:80"));
        assert_eq!(settled(V::HTTP_11, "/", &[""]), both(""));
        assert_eq!(settled(V::HTTP_11, "/", &[]), Err(BadHost::Missing));
        assert_eq!(settled(V::HTTP_11, "http://a.test/", &[]), Err(BadHost::Missing));
        assert_eq!(settled(V::HTTP_10, "/", &[]), both(""));
        for version in [V::HTTP_10, V::HTTP_11, V::HTTP_2] {
            assert_eq!(settled(version, "/", &["a.test", "a.test"]), Err(BadHost::Several));
            for bad in ["a b", "a/b", "u@a", "[::1"] {
                assert_eq!(settled(version, "/", &[bad]), Err(BadHost::Invalid), "{bad}");
            }
        }
        assert_eq!(settled(V::HTTP_2, "https://u@a.test/", &[]), Err(BadHost::Invalid));
    }

    #[test]
    fn another_host_beside_the_targets_goes_nowhere() {
        let wins = Ok(("a.test".to_owned(), "a.test".to_owned()));
        assert_eq!(settled(Version::HTTP_11, "http://a.test/", &["b.test"]), wins);
        assert_eq!(settled(Version::HTTP_2, "https://a.test/", &["b.test"]), Err(BadHost::Differ));
        let same = Ok(("a.test".to_owned(), "A.test".to_owned()));
        assert_eq!(settled(Version::HTTP_2, "https://a.test/", &["A.test"]), same);
    }
}
