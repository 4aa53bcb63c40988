//! HTTP/1.1 towards backends: a request is encoded and sent, the head of its response is read and judged, its body
//! decoded.

pub mod connection;
pub mod decode;
pub(crate) mod encode;
pub mod request;
pub mod response;
