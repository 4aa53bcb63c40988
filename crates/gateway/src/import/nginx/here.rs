//! A location, with all that its route is made of.

use super::location::{Location, Spot};
use super::scope::Scope;
use super::server::Server;
use super::variables::Facts;

/// A location while its route is made.
pub(super) struct Here<'a, 'b> {
    pub server: &'b Server<'a>,
    pub locations: &'b [Location<'a>],
    pub spot: &'b Spot,
    pub scope: Scope<'a>,
    pub facts: Facts,
}
