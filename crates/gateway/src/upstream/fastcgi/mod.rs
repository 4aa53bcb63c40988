//! FastCGI 1.0 with servers that run scripts, such as PHP-FPM; a connection for each request.
//!
//! [`params`] makes the variables of a request, [`record`] packs and unpacks, [`head`] turns the head of a script's
//! answer into one of HTTP. [`stream`] is a connection that uses them: what is written to it is the body of a request,
//! and what is read from it is an HTTP/1.0 response, so that [`h1`](super::h1) does the rest.

pub(crate) mod head;
pub(crate) mod params;
pub(crate) mod record;
pub(crate) mod stream;
