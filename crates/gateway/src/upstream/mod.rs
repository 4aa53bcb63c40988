//! Backends: a TCP connection to one, HTTP/1.1, HTTP/2 and FastCGI over it, connections that are kept, and what is passed on.

pub(crate) mod ask;
pub(crate) mod body;
pub(crate) mod dial;
pub(crate) mod edits;
pub(crate) mod fastcgi;
pub(crate) mod fetch;
pub(crate) mod forward;
pub(crate) mod h1;
pub(crate) mod http2;
pub(crate) mod identity;
pub(crate) mod interim;
pub(crate) mod location;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod stream;
