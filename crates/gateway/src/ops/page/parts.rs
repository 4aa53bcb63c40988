//! What several views have in common.

use maud::{Markup, html};

use crate::ops::page::shown;
use crate::ops::page::watch::Look;

/// A view, and what the browser calls it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) title: String,
    pub(super) main: Markup,
}

/// A button that changes something, by the script.
pub(super) fn button(text: &str, command: &str, target: Option<&str>) -> Markup {
    html! { button class="act" data-command=(command) data-target=[target] { (text) } }
}

/// When this was so.
pub(super) fn as_of(look: &Look) -> Markup {
    html! { p class="as-of" { "As of " time datetime=(shown::moment_machine(look.at)) { (shown::moment(look.at)) } } }
}
