//! HTTP/1.1 towards backends: a request is encoded and sent, the head of its response is read and judged, its body
//! decoded.

pub(crate) mod connection;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod request;
pub(crate) mod response;
