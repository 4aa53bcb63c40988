//! A location, with all that its route is made of.

use super::choice::choose;
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

impl<'a> Here<'a, '_> {
    /// The location for a request from inside, such as that for an error page.
    pub(super) fn location_of(&self, path: &str) -> Option<&Location<'a>> {
        choose(self.locations, path).map(|number| &self.locations[number])
    }
}
