//! The head of a request for the server that gets it. It is the same for all of them, unless a field names the server.

use std::sync::Arc;

use http::request::Parts;

use crate::site::endpoint::Endpoint;
use crate::upstream::forward::{self, Hop};

/// Makes the heads for the servers that a request is given to, one after the other.
#[derive(Debug)]
pub(super) struct ServerHead<'a> {
    hop: &'a Hop<'a>,
    /// The client's, and the server that has the last head made of it; `None`: one head is for all.
    of_client: Option<(Box<Parts>, Arc<Endpoint>)>,
}

impl<'a> ServerHead<'a> {
    /// Makes `head` one for the first server. Returns the lines behind it, too.
    #[inline]
    pub(super) fn first(hop: &'a Hop<'a>, head: &mut Box<Parts>, server: &Arc<Endpoint>) -> (Self, Vec<u8>) {
        let of_client = hop.names_server().then(|| (head.clone(), server.clone()));
        (Self { hop, of_client }, forward::request(head, hop, server))
    }

    /// The head for another server, and the lines behind it; `None`: what there is is for it, too.
    pub(super) fn next(&mut self, server: &Arc<Endpoint>) -> Option<(Box<Parts>, Vec<u8>)> {
        let (head, last) = self.of_client.as_mut().filter(|(_, last)| last != server)?;
        *last = server.clone();
        let mut head = head.clone();
        let lines = forward::request(&mut head, self.hop, server);
        Some((head, lines))
    }
}
